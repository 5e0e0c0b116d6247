"""Costs of probing, against the models that they are about."""

import re
from dataclasses import replace
from functools import cache

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from lcprobe.models.state import tensors_of
from lcprobe.probing.config import ProbeConfig
from lcprobe.schema import build
from lcprobe.studies.planning.probe_costs import (
    Device,
    ProbedModel,
    Prompts,
    flops,
    gpus_for,
    hours,
    memory,
    probe_cost_row,
    sharing_note,
)

BANDWIDTH = 3.35e12
H100 = Device("h100", 989e12, 80e9, BANDWIDTH)


def shape(layout, **settings):
    sizes = {"layout": layout, "d_model": 256, "d_ff": 512, "vocab_size": 4096, **settings}
    mixers = {"attention": {"head_dim": 64, "d_conv": 0}, "mamba2": {"head_dim": 64}}
    return build(ModelConfig, {**sizes, "mixers": mixers}, "model")


def planned(layout, half=False, blocks=4, **settings):
    sizes = shape(layout, **settings)
    return ProbedModel("m", cache(lambda n: model_cost(sizes, n)), sizes, blocks, half)


@pytest.mark.parametrize("layout", ["attention+mlp x 4", "mamba2 x 4", "attention+mlp, mamba2 x 3"])
def test_a_shared_prefix_is_paid_once_and_the_rest_by_its_positions(layout):
    """The tokens after a prefix see all of it: with attention they cost more than as many at the beginning."""
    model = planned(layout)
    whole, prefix = Prompts(4096, 1, answers=0), Prompts(2048, 1, answers=0)
    rest = Prompts(4096, 1, new=0.5, answers=0)
    assert flops(rest, model.cost) == pytest.approx(flops(whole, model.cost) - flops(prefix, model.cost))
    if "attention" in layout:
        assert flops(rest, model.cost) > 1.1 * flops(prefix, model.cost)
    else:
        assert flops(rest, model.cost) == pytest.approx(flops(prefix, model.cost))


def test_the_flops_of_a_prompt_are_those_of_the_products_of_a_forward_pass():
    """Counted by torch's own counter on a model without attention, whose products it all sees: two per parameter."""
    from torch.utils.flop_counter import FlopCounterMode

    sizes = shape("attention+mlp x 2")
    model, ids = LanguageModel(sizes).initialise(0).eval(), torch.zeros(1, 128, dtype=torch.int64)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.hidden(ids)
    counted = counter.get_total_flops()
    estimated = flops(Prompts(128, 1, answers=0), lambda n: model_cost(sizes, n))
    assert estimated == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("layout", ["attention+mlp x 4", "mamba2 x 4"])
def test_memory_has_the_weights_and_the_state_that_a_model_has(layout):
    model = planned(layout)
    module = LanguageModel(shape(layout)).initialise(0).eval()
    ids = torch.zeros(2, 200, dtype=torch.int64)
    with torch.inference_mode():
        state = module.hidden(ids, state=module.new_state(2))[1]
    stored = sum(t[..., :200, :].numel() * 4 if t.dim() == 4 and "attention" in layout else t.numel() * 4
                 for t in tensors_of(state) if t.is_floating_point())  # fmt: skip
    need = memory(Prompts(200, 1, candidates=3), model, ProbeConfig(), rows=2)
    assert need.weights == sum(p.numel() for p in module.parameters()) * 4
    assert need.states == pytest.approx(7 * stored, rel=0.15), "the prompts' own, three copies, what continues them"


def test_the_gpus_have_room_and_one_fewer_has_not():
    model = planned("attention+mlp x 80", blocks=80, half=True, d_model=8192, d_ff=28672, tie_embeddings=False)
    need = memory(Prompts(131_072, 1, candidates=4), model, ProbeConfig(precision="bf16"), rows=1)
    gpus = gpus_for(need, model, H100)
    assert gpus is not None
    assert need.on(gpus) <= 0.9 * 80e9 < need.on(gpus - 1)
    assert gpus_for(need, planned("attention+mlp x 80", blocks=2, half=True), H100) is None
    row = probe_cost_row(model, [Prompts(131_072, 10, candidates=4)], ProbeConfig(precision="bf16"), H100)
    assert (row["GPUs"], row["prompts at once"]) == (gpus, 1)
    assert float(str(row["GPU hours"])) == pytest.approx(gpus * float(str(row["hours, h100"])), rel=0.02)


def test_printing_tokens_takes_at_least_the_time_to_read_the_weights():
    model = planned("mamba2 x 4")
    prompts = Prompts(64, 1000, answers=0)
    more = Prompts(64, 1000, answers=0, greedy=128)
    reads = 1000 * 128 * model.cost(1).params * 4 / BANDWIDTH / 3600
    assert hours(more, model, H100, batch_tokens=1) >= hours(prompts, model, H100, batch_tokens=1) + reads


def test_a_machine_without_a_gpu_has_no_gpu_hours_and_splits_no_layers():
    model, prompts = planned("attention+mlp x 4"), [Prompts(4096, 10)]
    here = Device("here", 1e11, 1e12, None, gpu=False)
    row = probe_cost_row(model, prompts, ProbeConfig(), here)
    assert not [name for name in row if "GPU" in name]
    assert row["fits"] is True
    need = memory(prompts[0], model, ProbeConfig(), rows=1)
    small = Device("here", 1e11, need.on(1), None, gpu=False)
    assert need.on(2) < 0.9 * need.on(1)
    assert probe_cost_row(model, prompts, ProbeConfig(), small)["fits"] is False


def test_one_prompt_with_a_large_state_has_two_of_them_and_a_shared_prefix():
    model = planned("attention+mlp x 80", blocks=80, half=True, d_model=8192, d_ff=28672)
    state = model.cost(131_072).blocks.kv_bytes / 2
    assert state > 4 << 30
    for new, states in ((1.0, 2), (0.5, 3)):
        need = memory(Prompts(131_072, 1, new=new, candidates=4), model, ProbeConfig(precision="bf16"), rows=1)
        assert need.states == pytest.approx(states * state, rel=0.01)


def test_the_memory_of_a_row_is_that_of_its_length():
    model, probe = planned("mamba2 x 4"), ProbeConfig(batch_tokens=131_072)
    row = probe_cost_row(model, [Prompts(4096, 10), Prompts(131_072, 10)], probe, H100)
    alone = probe_cost_row(model, [Prompts(131_072, 10)], probe, H100)
    assert row["length"] == 131_072
    assert row["prompts at once"] == 1
    for name in ("states GB", "GPUs", "GB each"):
        assert row[name] == alone[name]


def test_a_server_reads_every_prompt_for_every_candidate_and_its_memory_is_not_known():
    model, prompts = planned("attention+mlp x 4"), Prompts(4096, 10, answers=0)
    served = replace(model, served=True, knows_state=False)
    assert flops(replace(prompts, reads=3), served.cost) == pytest.approx(3 * flops(prompts, model.cost))
    row = probe_cost_row(served, [replace(prompts, reads=3)], ProbeConfig(), H100)
    assert row["read"] == 3 * 40_960
    assert {row[name] for name in ("weights GB", "states GB", "GPUs", "GB each", "GPU hours")} == {""}
    unknown = probe_cost_row(replace(model, knows_state=False), [prompts], ProbeConfig(), H100)
    assert unknown["weights GB"] != "" == unknown["states GB"]


def test_the_proposed_processes_have_room_and_half_of_them_have_not():
    model = planned("attention+mlp x 32", blocks=32, d_model=4096, d_ff=11008)
    prompts, probe = [Prompts(4096, 10), Prompts(1 << 20, 1)], ProbeConfig()
    found = re.search(
        r"probe.context_parallel=(\d+) would fit, ([\d.]+) GB each$", sharing_note(model, prompts, probe, H100)
    )
    assert found is not None
    n = int(found[1])
    each = {k: memory(prompts[1], model, probe, 1, k).on(1) for k in (n // 2, n)}
    assert each[n] <= 0.9 * 80e9 < each[n // 2]
    assert float(found[2]) == pytest.approx(each[n] / 1e9, abs=0.05)
    row = probe_cost_row(model, prompts, ProbeConfig(context_parallel=n), H100)
    assert (row["GPUs"], row["GB each"]) == (n, pytest.approx(each[n] / 1e9, abs=0.01))
    assert sharing_note(model, prompts, ProbeConfig(context_parallel=n), H100) == ""
    assert sharing_note(model, prompts[:1], probe, H100) == "", "what fits needs no others"


def test_states_of_fixed_size_are_not_divided():
    model, recurrent = planned("attention+mlp x 4"), planned("mamba2 x 4")
    for one, share in ((model, 1 / 4), (recurrent, 1.0)):
        alone, shared = (memory(Prompts(1 << 20, 1), one, ProbeConfig(), 1, n).states for n in (1, 4))
        assert shared == pytest.approx(share * alone)
