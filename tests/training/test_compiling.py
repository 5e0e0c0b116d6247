"""Compiled blocks stay compiled: no graph breaks at an op, and lengths, documents, gradients and probes hit no limit.
Computed again in the backward pass, compiled or not, they give the gradients that they give without."""

import pytest
import torch
from torch._dynamo.utils import counters

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import build
from lcprobe.training.compiling import compile_blocks, uncompiled
from tests.models.contract_cases import CASES, MIXER_SETTINGS
from validation.context_parallel.compare import batch
from validation.invariances.ours import built

LAYOUT = "mamba2 x 2, attention+mlp, mamba2+mlp, attention"
SETTINGS = {"attention": {"head_dim": 8, "d_conv": 4}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}}


VARIANTS = {
    "plain": ({}, False),
    "recompute": ({}, True),
    "drawn positions": ({"positions": {"type": "randomized", "max_length": 256}}, False),
}


@pytest.mark.parametrize(
    "variant", ["plain", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name != "plain")]
)
def test_blocks_compile_without_a_break_and_stay_compiled(variant):
    settings, recompute = VARIANTS[variant]
    sizes = {"d_model": 16, "d_ff": 16, "vocab_size": 64, "context_length": 64}
    model = LanguageModel(build(ModelConfig, {**sizes, "layout": LAYOUT, "mixers": SETTINGS, **settings}, "model"))
    model.recompute = recompute
    graphs = []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    def new_graphs(length, documents, grad=True, state=False):
        before, tokens = len(graphs), torch.zeros(2, length, dtype=torch.int64)
        starts = (tokens + torch.arange(length)) % 9 == 0 if documents else None
        with torch.set_grad_enabled(grad):
            hidden, _ = model.hidden(
                tokens,
                starts=starts,
                starts_on_host=starts,
                state=model.new_state(2, length=length) if state else None,
            )
            if grad:
                hidden.sum().backward()
        return len(graphs) - before

    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model, backend=count)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        kinds = new_graphs(64, True)  # a graph a kind of block: first or not, mixer, MLP or none
        assert 5 <= kinds <= 6  # and of attention, whether an earlier layer has computed what all of them need
        assert new_graphs(32, True) <= kinds  # for any length
        assert [new_graphs(length, True) for length in (48, 24, 40, 64, 32, 20)] == [0] * 6
        assert new_graphs(64, False) + new_graphs(48, False) <= 2 * kinds
        assert [new_graphs(length, False) for length in (24, 40, 64, 32, 20)] == [0] * 5
        with uncompiled():  # as the probe while training
            assert [new_graphs(n, False, False, True) for n in (1, 40, 64)] == [0, 0, 0]
        assert new_graphs(64, True) == 0
    assert not counters["graph_break"]
    torch._dynamo.reset()


ENCODED = {f"attention, {name}": {"positional": {"type": name}} for name in POSITIONAL}
EVERY = {name: {} for name in MIXERS if name != "attention"} | ENCODED


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERY)
def test_no_mixer_and_no_encoding_is_compiled_for_one_length(kind):
    mixer = kind.split(",")[0]
    sizes = {"d_model": 16, "d_ff": 16, "vocab_size": 64, "context_length": 64, "layout": f"{mixer} x 2"}
    mixers = {mixer: MIXER_SETTINGS[mixer][0] if mixer in MIXER_SETTINGS else {}}
    model = LanguageModel(build(ModelConfig, {**sizes, "mixers": mixers, **EVERY[kind]}, "model"))
    graphs = []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    def new_graphs(length):
        before, tokens = len(graphs), torch.zeros(2, length, dtype=torch.int64)
        hidden, _ = model.hidden(tokens, starts=(tokens + torch.arange(length)) % 9 == 0)
        hidden.sum().backward()
        return len(graphs) - before

    torch._dynamo.reset()
    counters.clear()
    compile_blocks(model, backend=count)
    assert new_graphs(64) > 0
    new_graphs(32)  # for any length
    assert [new_graphs(length) for length in (48, 24, 40)] == [0, 0, 0]
    # what loops over blocks of queries says so and runs as it is written, between compiled parts
    assert all("torch.compiler.disable" in reason for reason in counters["graph_break"])
    torch._dynamo.reset()


PASSES = [(48, True), (32, True), (32, False)]
"""Length, and whether documents are packed."""
ONE_OF_EACH = {
    f"{'mixer' if case.registry is MIXERS else 'encoding'} {case.name}": case.settings
    for case in CASES
    if case.registry in (MIXERS, POSITIONAL) and not case.name.startswith("toy")
}
"""Settings of every mixer and every encoding, the last ones listed."""


def gradients(model, recompute, passes=PASSES):
    """Loss and gradients of each pass."""
    found, model.recompute = [], recompute
    for length, documents in passes:
        tokens, weights, starts = batch(documents, length)
        model.zero_grad()
        torch.manual_seed(1)  # of drawn positions
        loss, _, _ = model.loss(tokens, weights, starts=starts, starts_on_host=starts)
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return found


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_blocks_computed_again_give_the_same_gradients_to_the_bit(kind):
    model = built(ONE_OF_EACH[kind]).train()
    pairs = zip(gradients(model, True), gradients(model, False), strict=True)
    assert all(torch.equal(again, once) for again, once in pairs)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        ("encoding rope", PASSES[:1]),
        *(pytest.param(kind, PASSES, marks=pytest.mark.slow) for kind in ONE_OF_EACH),
    ],
)
def test_compiled_blocks_are_computed_again_as_the_same_graphs(kind, passes):
    """Of autograd too, which compares what both passes keep, and raises where that differs."""
    model = built(ONE_OF_EACH[kind]).train()
    want = gradients(model, False, passes)
    torch._dynamo.reset()
    compile_blocks(model, "aot_eager")
    for ours, theirs in zip(gradients(model, True, passes), want, strict=True):
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
    torch._dynamo.reset()
