"""Measurements on plain text against plain formulas: cross-entropy, total variation, norms; and states that blow up are counted."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from lcprobe.errors import ConfigError
from lcprobe.lengths import multiples
from lcprobe.models.state import State
from lcprobe.probing.config import ContextProbe
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.plain_text import Points, measure_windows, points_of, run_context, windows_of
from lcprobe.probing.runner import ProbedCheckpoint
from lcprobe.probing.store import Store
from lcprobe.probing.store.versions import CONTEXT
from lcprobe.schema import build

POINTS = Points((8, 11, 16, 40, 64), (16, 64), (4, 13, 32))
SUBJECT = ProbedCheckpoint("m", "0" * 16, 1, 2)


@pytest.fixture(scope="module")
def windows(materials):
    return windows_of(materials, 3, 64)


def chosen(rows, name):
    return [row for row in rows if row["measure"] == name]


@pytest.mark.parametrize("chunk", [1, 5, 1024])
def test_loss_by_position_equals_plain_cross_entropy(untrained, windows, chunk):
    measured = measure_windows(untrained, windows, POINTS, chunk, "cpu")
    for window, rows in zip(windows, measured, strict=True):
        ids = torch.from_numpy(window.ids)
        with torch.no_grad():
            hidden, _ = untrained.hidden(ids[None])
            loss = F.cross_entropy(
                untrained.logits(hidden[0, :-1]), ids[1:], reduction="none"
            ).numpy()  # [j - 1]: of token j
        bins = chosen(rows, "loss")
        assert [(r["low"], r["high"]) for r in bins] == [(1, 7), (8, 10), (11, 15), (16, 39), (40, 63)]
        for r in bins:
            assert r["value"] == pytest.approx(loss[r["low"] - 1 : r["high"]].mean(), abs=1e-4)
            assert r["count"] == r["high"] - r["low"] + 1
        assert {r["value"] for r in chosen(rows, "not_finite_predictions")} == {0}


def test_remembrance_equals_brute_force(untrained, windows):
    measured = measure_windows(untrained, windows, POINTS, 7, "cpu")
    for window, rows in zip(windows, measured, strict=True):
        ids = torch.from_numpy(window.ids)
        own = chosen(rows, "remembrance")
        assert [(r["high"], r["kept"], r["low"]) for r in own] == [
            (16, 4, 11),
            (16, 13, 2),
            (64, 4, 59),
            (64, 13, 50),
            (64, 32, 31),
        ]
        for r in own:
            with torch.no_grad():
                sides = []
                for text in (ids[: r["high"]], torch.cat([ids[:1], ids[1 + r["low"] : r["high"]]])):
                    sides.append(untrained.logits(untrained.hidden(text[None])[0][0, -1]).double().softmax(-1))
            assert r["value"] == pytest.approx(float((sides[0] - sides[1]).abs().sum() / 2), abs=1e-5)
            assert 0 < r["value"] < 1


def test_the_state_is_measured_row_by_row(untrained, windows):
    measured = measure_windows(untrained, windows, POINTS, 1024, "cpu")
    for window, rows in zip(windows, measured, strict=True):
        ids = torch.from_numpy(window.ids)[None]
        for norm, size in zip(chosen(rows, "state_rms"), chosen(rows, "state_bytes"), strict=True):
            with torch.no_grad():
                _, state = untrained.hidden(ids[:, : norm["high"]], state=untrained.new_state(1))
            attention, mamba = state.layers
            parts = (attention.cache.k, attention.cache.v, attention.conv, mamba.ssm, mamba.conv)
            values = torch.cat([t.flatten() for t in parts]).double()
            assert norm["value"] == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
            assert norm["count"] == len(values)
            assert size["value"] == state.nbytes


@dataclasses.dataclass(frozen=True)
class Doubled(State):
    x: torch.Tensor


class Exploding(ProbedModel):
    """Its state doubles with every token, in half precision: infinite after 16; predictions are lost after 40 tokens."""

    seen = 0

    def new_state(self, batch, length=None):
        return Doubled(torch.ones(batch, 6, dtype=torch.float16))

    def hidden(self, tokens, *, state):
        seen = state.x[:, :1].float().log2().round()
        after = Doubled(torch.where(state.x > 0, state.x * 2.0 ** tokens.shape[1], 0))
        self.seen += tokens.shape[1]
        hidden = torch.nn.functional.one_hot(tokens % 9, 9).float() + 0 * seen.nan_to_num(0, 0, 0)[..., None]
        return torch.where(torch.tensor(self.seen > 40), torch.nan, hidden), after

    def logits(self, hidden):
        return hidden


def test_a_planted_blow_up_is_counted(windows):
    windows = [dataclasses.replace(w, ids=w.ids % 9) for w in windows]
    points = dataclasses.replace(POINTS, lengths=(16,))
    for rows in measure_windows(Exploding(), windows, points, 1024, "cpu"):
        assert [r["value"] for r in chosen(rows, "not_finite_state")] == [0, 0, 6, 6, 6]
        assert [r["value"] for r in chosen(rows, "state_rms")] == pytest.approx([2.0**8, 2.0**11, 0, 0, 0], rel=1e-12)
        assert [r["value"] for r in chosen(rows, "not_finite_predictions")] == [0, 0, 0, 0, 23]
        assert chosen(rows, "loss")[-1]["count"] == 1


def test_bins_have_the_training_length_as_an_edge_and_reach_the_longest():
    points = points_of(ContextProbe(lengths=multiples(0.5, 1, 3)), 128)
    assert points.edges == (8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 384)
    assert points.lengths == (64, 128, 384)


def test_windows_are_whole_words_apart_and_the_same_every_time(materials):
    text_windows = windows_of(materials, 9, 50)
    stream = materials.stream("corpus")
    assert [w.start for w in text_windows] == sorted(w.start for w in text_windows)
    for window, again in zip(text_windows, windows_of(materials, 9, 50), strict=True):
        assert stream.cuts[window.start]
        assert np.array_equal(window.ids, again.ids)
        assert window.ids.shape == (50,)
        assert np.array_equal(window.ids[window.bos :], stream.take(window.start, 50 - window.bos))


def run(model, materials, store, probe, **given):
    unit = run_context(
        probe, 32, materials, model, SUBJECT, store, **{"chunk": 64, "batch_tokens": 200, "device": "cpu", **given}
    )
    return store.read([unit])


class Stops(ProbedModel):
    """Out of memory above two rows, and interrupted after some calls."""

    def __init__(self, model, calls):
        self.model, self.calls = model, calls

    def new_state(self, batch, length=None):
        if batch > 2:
            raise torch.OutOfMemoryError("out of memory")
        return self.model.new_state(batch)

    def hidden(self, tokens, *, state):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.model.hidden(tokens, state=state)

    def logits(self, hidden):
        return self.model.logits(hidden)


def test_a_unit_is_measured_once_and_resumed_after_an_interruption(untrained, materials, tmp_path):
    probe = build(ContextProbe, {"lengths": [1, 2], "n": 7, "kept": [8]}, "probe.context")
    store = Store(tmp_path / "a", CONTEXT)
    whole = run(untrained, materials, store, probe)
    assert isinstance(whole, pa.Table)
    assert len({r["window"] for r in whole.to_pylist()}) == 7
    assert run(None, materials, store, probe).equals(whole)
    cut = Store(tmp_path / "b", CONTEXT)
    with pytest.raises(KeyboardInterrupt):
        run(Stops(untrained, 20), materials, cut, probe, batch_tokens=128)
    assert list(cut.folder.glob("*.journal"))
    again = run(Stops(untrained, 10**6), materials, cut, probe, batch_tokens=1000)
    rest = [name for name in whole.column_names if name != "value"]
    assert again.select(rest).equals(whole.select(rest))
    assert np.allclose(again["value"], whole["value"], atol=1e-4)


@pytest.mark.parametrize(("given", "key"), [({"n": 1}, "n"), ({"lengths": []}, "lengths"), ({"kept": [0]}, "kept")])
def test_mistakes_are_one_line(given, key):
    with pytest.raises(ConfigError, match=f"probe.context.{key}: given"):
        build(ContextProbe, given, "probe.context")
    with pytest.raises(ConfigError, match="whole tokens of 100"):
        ContextProbe(lengths=multiples(0.333)).tokens([100])
