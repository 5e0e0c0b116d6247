"""gated_linear_attention's adapter to flash-linear-attention: its arguments, its packs, and fla's own results."""

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.gated_linear_attention import fla, reference

from tests.kernels.gated_linear_attention_cases import draw_inputs, judged, ours
from tests.kernels.judge import relative_error


def arguments(inputs, starts=None):
    names = ("q", "k", "v", "log_decay", "bonus", "beta", "erase", "a", "b")
    return [*(inputs.get(n) for n in names), inputs["q"].shape[3] ** -0.5, inputs.get("initial_state"), starts]


NAIVE = {  # form, per_head -> fla's function, its plain PyTorch counterpart, whether that wants heads before time
    ("plain", False): ("chunk_gla", "gla.naive:naive_recurrent_gla", False),
    ("plain", True): ("chunk_simple_gla", "simple_gla.naive:naive_recurrent_simple_gla", False),
    ("bonus", False): ("chunk_rwkv6", "rwkv6.recurrent_naive:naive_recurrent_rwkv6", True),
    ("beta", True): ("chunk_gated_delta_rule", "gated_delta_rule.naive:naive_recurrent_gated_delta_rule", False),
    ("beta", False): ("chunk_kda", "kda.naive:naive_recurrent_kda", False),
    ("erase", False): ("chunk_gdn2", "gdn2.naive:naive_recurrent_gdn2", False),
    ("ab", False): ("chunk_dplr_delta_rule", "generalized_delta_rule.dplr.naive:dplr_recurrence", True),
}
RENAMED = {"chunk_rwkv6": {"r": "q"}, "chunk_gla": {"g": "gk"}, "chunk_dplr_delta_rule": {"a": "alpha", "b": "beta"}}


@pytest.mark.parametrize(("form", "per_head"), list(NAIVE))
def test_flas_plain_pytorch_agrees_through_the_adapter(form, per_head):
    if find_spec("fla") is None or find_spec("einops") is None:
        pytest.skip("fla is not installed: pip install flash-linear-attention fla-core einops")
    name, naive, heads_first = NAIVE[form, per_head]
    inputs, _ = draw_inputs(form, (2, 13, 2, (4, 3)), 4, per_head=per_head)
    inputs = {k: v.float().cpu() for k, v in inputs.items()}
    call = fla.call_of(*arguments(inputs))
    assert call.name == name
    given = {
        RENAMED.get(name, {}).get(k, k): v for k, v in call.arguments.items() if k not in ("cu_seqlens", "scale")
    }
    if heads_first:
        given = {
            k: v.transpose(1, 2) if k in ("q", "k", "v", "w", "alpha", "beta", "gk") else v for k, v in given.items()
        }
    module, function = naive.split(":")
    o, state = getattr(import_module(f"fla.ops.{module}"), function)(**given)
    want, final = reference(**inputs)
    assert relative_error(o.transpose(1, 2) if heads_first else o, want) < 1e-5
    assert relative_error(state, final) < 1e-5


@pytest.mark.parametrize("first", [False, True])
def test_the_adapter_hands_packs_over_as_one_row_of_documents(first, monkeypatch):
    """A stand-in for fla that runs every document alone gives back what the pack gives."""
    inputs, starts = draw_inputs("ab", (3, 9, 2, (3, 4)), 5)
    starts[:, 0] = torch.tensor([first, False, True])

    def alone(q, k, v, a, b, gk, scale, initial_state, output_final_state, cu_seqlens):
        assert output_final_state
        ends, out, states = cu_seqlens.tolist(), [], []
        for i in range(len(ends) - 1):
            cut = {
                n: x[:, ends[i] : ends[i + 1]]
                for n, x in {"q": q, "k": k, "v": v, "a": a, "b": b, "log_decay": gk}.items()
            }
            o, s = reference(**cut, scale=scale, initial_state=initial_state[i : i + 1])
            out.append(o)
            states.append(s)
        return torch.cat(out, 1), torch.cat(states)

    monkeypatch.setattr(
        fla, "import_module", lambda _: type("Module", (), {"chunk_dplr_delta_rule": staticmethod(alone)})
    )
    want, final = reference(**inputs, starts=starts)
    o, state = fla.run(*arguments(inputs, starts))
    assert relative_error(o, want) < 1e-6  # the adapter hands decays and states over in float32
    assert relative_error(state, final) < 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize(("form", "per_head"), [*NAIVE, ("erase", True), ("ab", True), ("bonus", True)])
def test_flas_kernels_agree_on_a_gpu(form, per_head):
    if backends.missing("fla") is not None:
        pytest.skip(str(backends.missing("fla")))
    inputs, starts = draw_inputs(form, (2, 130, 2, (64, 64)), 4, "weak", per_head)
    rounded = {k: v.bfloat16() for k, v in inputs.items()}
    exact = judged(lambda i: reference(**i, starts=starts), {k: v.double() for k, v in rounded.items()}, 1)
    with backends.using("fla"):
        got = judged(ours(starts), rounded, 1)
    for name, value in exact.items():
        assert relative_error(got[name], value) < 3e-2, name
