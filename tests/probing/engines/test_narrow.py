"""Probing in bfloat16: near float32, logits in float32, any chunking; and never mixed with what float32 has scored."""

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.mixers import MIXERS
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.plain_text import run_context
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import Store
from lcprobe.probing.store.versions import CONTEXT
from lcprobe.schema import build
from tests.models.contract_cases import CASES
from validation.invariances.checks import VOCAB


@torch.inference_mode()
def read(model, tokens, chunk):
    state, parts = model.new_state(len(tokens), tokens.shape[1] if model.needs_length else None), []
    for part in tokens.split(chunk, dim=1):
        hidden, state = model.hidden(part, state=state)
        parts.append(hidden)
    return torch.cat(parts, 1)


def test_it_is_the_model_with_narrow_products_and_wide_logits_in_any_chunks(untrained):
    tokens = torch.randint(0, 4096, (2, 40), generator=torch.Generator().manual_seed(0))
    narrow, wide = in_precision(untrained, "bf16"), read(untrained, tokens, 40)
    assert in_precision(untrained, "32") is untrained
    whole = read(narrow, tokens, 40)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, whole.bfloat16().float())  # it was bfloat16
    for chunk in (40, 17, 1):
        assert (read(narrow, tokens, chunk) - wide).abs().max() < 3e-2 * wide.abs().max()
    with torch.inference_mode():
        logits = narrow.logits(whole[:, -1])
        assert torch.equal(logits, untrained.logits(whole[:, -1]))
    assert not torch.equal(logits, logits.bfloat16().float())
    assert (narrow.max_length, narrow.needs_length, narrow.selection) == (None, False, None)


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_reads_in_chunks_in_bfloat16(name):
    """Its state may be wide or narrow, and is read in either."""
    model = next(case for case in CASES if case.registry is MIXERS and case.name == name).build().float()
    tokens = torch.randint(0, VOCAB, (2, 24), generator=torch.Generator().manual_seed(0))
    narrow, wide = in_precision(model, "bf16"), read(model, tokens, 24)
    for chunk in (24, 7):
        assert (read(narrow, tokens, chunk) - wide).norm() < 5e-2 * wide.norm()


def test_units_of_one_precision_are_never_read_for_the_other(untrained, materials, tmp_path):
    tasks = TaskSet(build(ProbeConfig, {"tasks": {"s": {"type": "niah", "n_keys": 1}}}, "probe"), materials)
    plan = tasks.plan([build(Grid, {"lengths": ["128t"], "depths": 1, "n": 3}, "grid")], 64)
    text = build(ProbeConfig, {"context": {"lengths": ["64t"], "n": 2}}, "probe").context
    store, texts, scores, units = Store(tmp_path / "r"), Store(tmp_path / "c", CONTEXT), {}, {}
    for precision in ("32", "bf16"):
        subject, model = (
            ProbedCheckpoint("m", "0" * 16, 1, 2, precision=precision),
            in_precision(untrained, precision),
        )
        ids = run_plan(plan, tasks, ModelScorer(model, materials.tokenizer, "cpu", 64), subject, store)
        scores[precision] = store.read(ids)["log_likelihood"].to_numpy()
        at = {"chunk": 64, "batch_tokens": 256, "device": "cpu"}
        units[precision] = {*ids, run_context(text, 64, materials, model, subject, texts, **at)}
    assert not units["32"] & units["bf16"]
    assert sorted(unit.precision for unit in store.summaries().values()) == ["", "bf16"]
    assert (scores["32"] != scores["bf16"]).all()
    assert abs(scores["32"] / scores["bf16"] - 1).max() < 2e-2


def test_another_precision_is_one_line():
    with pytest.raises(ConfigError, match=r"^probe.precision: given '16'; allowed: .*bf16"):
        build(ProbeConfig, {"precision": "16"}, "probe")
