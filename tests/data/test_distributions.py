"""What a run was asked and could see, against a walk over every token and every answer of its batches."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.data.config import DataConfig
from lcprobe.data.distributions import MOST, quantiles, training_data_of
from lcprobe.data.mixture import Mixture
from lcprobe.schema import build
from lcprobe.training_data import read_training_data, write_training_data


@dataclass
class Documents:
    """Stands in for a prepared corpus of documents of given lengths."""

    sizes: list[int]
    folder: str = "documents"
    starts: np.ndarray = field(init=False)

    def __post_init__(self):
        self.starts = np.cumsum([0, *self.sizes[:-1]])
        self.n_tokens = sum(self.sizes)

    def materials(self, split: str) -> Any:
        return None

    def tokens(self, first: int, n: int) -> np.ndarray:
        return np.arange(first, first + n)


def exact(values) -> tuple[float, ...]:
    """Quantiles in whole numbers: the least value that i twentieths of all values are at or below."""
    ordered, n = sorted(values), len(values)
    return tuple(float(ordered[max(-(-i * n // 20), 1) - 1]) for i in range(21)) if n else ()


def walked(mixture: Mixture):
    """The length of the piece of each token, and the tokens before it, by walking from token to token."""
    starts = set(mixture.data.starts.tolist())
    lengths, before = [], []
    for step in range(mixture.steps):
        batch, seqlen = mixture.batch(step, 0), mixture.seqlen(step)
        for row in batch.tokens.tolist():  # a token of the stand-in is its place in the corpus
            for number, token in enumerate(row):
                back, limit = token, row[0] - (mixture.preceding * seqlen)
                while back not in starts and back > max(limit, 0):
                    back -= 1
                ahead = number + 1
                while ahead < seqlen and row[ahead] not in starts:
                    ahead += 1
                before.append(token - back)
                lengths.append(token - back + ahead - number)
    return lengths, before


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    lengths=st.sampled_from([[1.0], [0.5, 1.0], ["4t"]]),
    preceding=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_visible_tokens_are_those_of_a_walk_from_token_to_token(sizes, lengths, preceding, seed):
    config = build(DataConfig, {"mixture": [{"lm": 1.0, "lengths": lengths}]}, "data")
    sizes = [16, *sizes]
    mixture = Mixture(config, Documents(sizes), context_length=16, rows=2, steps=6, parts=1, seed=seed, preceding=preceding)  # type: ignore[arg-type]  # fmt: skip
    found = training_data_of(mixture)
    visible, before = walked(mixture)
    assert found.visible == exact(visible)
    assert found.visible_before == exact(before)
    assert found.needle_distances == ()
    assert found.median_visible == exact(visible)[10]


def test_an_unbroken_document_is_visible_as_far_as_a_sequence_goes():
    config = build(DataConfig, {"mixture": [{"lm": 1.0}]}, "data")
    mixture = Mixture(config, Documents([4096]), context_length=64, rows=4, steps=8, parts=1, seed=0)  # type: ignore[arg-type]
    found = training_data_of(mixture)
    assert set(found.visible) == {64.0}
    assert found.visible_before == exact(list(range(64)))
    assert found.text_share == 1.0


RECIPES = {"lines": {"task": {"type": "niah", "n_keys": 3, "n_queries": 2, "template": "line", "digits": 5}}}


def make(prepared, data_settings, *, steps=12, lm=0.25, recipes=RECIPES, lengths=(1,)):
    mixture = [{"lm": lm, "episodes": {"lines": 1}, "lengths": list(lengths)}]
    given = {**data_settings, "recipes": recipes, "mixture": mixture, "answer_weight": 3.0}
    config = build(DataConfig, given, "data")
    return Mixture(config, prepared, context_length=128, rows=8, steps=steps, parts=1, seed=0)


def test_needle_distances_are_those_of_the_answers_in_the_batches(prepared, data_settings):
    mixture, distances = make(prepared, data_settings), []
    for step in range(mixture.steps):
        batch = mixture.batch(step, 0)
        for row, weights in zip(batch.tokens[~batch.text_rows], batch.weights[~batch.text_rows], strict=True):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], weights > 0, [0]])))
            for start, stop in edges.reshape(-1, 2):
                answer = row[start:stop]
                at = [i for i in range(start) if np.array_equal(row[i : i + len(answer)], answer)]
                assert len(at) == 1, "once as a needle"
                distances.append(start - at[0] - len(answer))
    found = training_data_of(mixture)
    assert found.needle_distances == exact(distances)
    assert found.farthest == exact(distances)[19]
    assert found.distance == "uniform"


def test_a_sample_of_a_long_training_has_the_distribution_of_all_of_it(prepared, data_settings):
    short = {"lines": {**RECIPES["lines"], "distance": "recent"}}
    everywhere, recent = (
        training_data_of(make(prepared, data_settings, steps=5000, recipes=r, lengths=[1, 0.5]))
        for r in (RECIPES, short)
    )
    assert (everywhere.distance, recent.distance) == ("uniform", "recent")
    assert everywhere.needle_distances[-1] > 100
    assert recent.needle_distances[10] < everywhere.needle_distances[10]
    # half of the tokens are in sequences of 64: these are twice as many
    assert everywhere.visible[5] <= 64 < everywhere.visible[-1] == 128
    assert everywhere == training_data_of(make(prepared, data_settings, steps=5000, lengths=[1, 0.5]))


def test_sequences_are_weighted_by_how_many_there_are(prepared, data_settings):
    """Steps of 128 and of 64 tokens in turn: two thirds of the questions are in sequences of 64."""
    m = make(prepared, data_settings, steps=2000, lm=0, lengths=[1, 0.5])
    found = np.array(training_data_of(m).needle_distances)
    all_of_them = [
        q.distance
        for slot in range(0, 16_000, 37)
        for which in range(128 // m.seqlen(slot // 8))
        for q in m.episode(slot, which).queries
    ]
    assert len(all_of_them) > 2 * MOST
    far = np.mean(np.array(all_of_them) > 64)
    share = np.mean(np.interp(np.linspace(0, 1, 500), np.linspace(0, 1, 21), found) > 64)
    assert abs(share - far) < 0.06


@pytest.mark.parametrize(("lm", "steps"), [(0.25, 40), (0.9, 400), (0, 10)])
def test_the_share_of_text_is_that_of_the_batches(prepared, data_settings, lm, steps):
    m = make(prepared, data_settings, lm=lm, steps=steps)
    kinds = [m.kind(slot) is None for slot in range(steps * 8)]
    assert training_data_of(m).text_share == pytest.approx(np.mean(kinds), abs=2 / len(kinds) + 1e-3)


def test_quantiles_are_weighted():
    assert quantiles(np.array([3, 1]), np.array([1, 19])) == (*[1.0] * 20, 3.0)
    assert quantiles(np.array([]), np.array([])) == ()


def test_the_file_gives_back_what_was_written(prepared, data_settings, tmp_path):
    found = training_data_of(make(prepared, data_settings), "preceding")
    write_training_data(tmp_path, found)
    assert read_training_data(tmp_path) == found
    assert found.initial_state == "preceding"
    assert read_training_data(tmp_path / "elsewhere") is None
