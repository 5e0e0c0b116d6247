"""The choice of a backend, as a function of what a call asks for and what is installed."""

import itertools

import pytest
import torch
from lcprobe_kernels import OPS, ArgumentError
from lcprobe_kernels.abilities import ABILITIES, FEATURES
from lcprobe_kernels.choosing import Request, choose, misfit

BF16, FP32 = torch.bfloat16, torch.float32
NONE: dict[str, str] = {}


def taken(
    op,
    chosen="auto",
    missing=NONE,
    dtype=BF16,
    device="cuda",
    capability=(9, 0),
    needs=(),
    head_dim=64,
    versions=NONE,
):
    request = Request(op, device, dtype, frozenset(needs), head_dim, capability)
    return choose(request, chosen, ABILITIES[op], FEATURES[op], missing, versions)


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, "flash_attn"),
        (
            {"needs": ("gradients", "slopes", "window", "documents", "soft cap", "lse gradient", "deterministic")},
            "flash_attn",
        ),
        ({"needs": ("cache",), "capability": (8, 0)}, "flash_attn"),
        ({"missing": {"flash_attn": "not installed"}}, "sdpa"),
        ({"missing": {"flash_attn": "not installed"}, "needs": ("documents",)}, "triton"),
        ({"capability": (7, 5)}, "sdpa"),
        ({"dtype": FP32}, "sdpa"),
        ({"dtype": FP32, "needs": ("window",)}, "triton"),
        ({"dtype": FP32, "needs": ("soft cap",)}, "torch"),
        ({"needs": ("table",)}, "triton"),
        ({"needs": ("window", "sinks")}, "triton"),
        ({"needs": ("window",), "head_dim": 264}, "triton"),
        ({"needs": ("window",), "head_dim": 68}, "triton"),
        ({"needs": ("learned slopes", "slopes")}, "triton"),
        ({"device": "cpu", "capability": None, "needs": ("window",)}, "torch"),
        ({"device": "meta", "capability": None, "needs": ("window",)}, "torch"),
        ({"dtype": torch.float64}, "torch"),
    ],
)
def test_auto_takes_flash_attn_where_it_fits_and_else_the_next_that_does(changes, want):
    assert taken("attention", **changes).backend == want


@pytest.mark.parametrize(
    ("op", "changes", "want"),
    [
        ("ssd", {}, "mamba_ssm"),
        ("ssd", {"dtype": FP32}, "triton"),
        ("ssd", {"needs": ("deterministic",), "versions": {"mamba_ssm": (2, 3, 1)}}, "triton"),
        ("ssd", {"needs": ("deterministic",), "versions": {"mamba_ssm": (2, 3, 2)}}, "mamba_ssm"),
        ("ssd", {"missing": {"mamba_ssm": "not installed"}}, "triton"),
        ("ssd", {"chosen": "mamba_ssm"}, "mamba_ssm"),
        ("ssd", {"chosen": "fla"}, "mamba_ssm"),
        ("ssd", {"missing": {"triton": "not installed", "mamba_ssm": "not installed"}}, "torch"),
        ("causal_conv1d", {}, "causal_conv1d"),
        ("causal_conv1d", {"dtype": FP32, "chosen": "mamba_ssm"}, "causal_conv1d"),
        ("causal_conv1d", {"needs": ("ragged",)}, "triton"),
        ("causal_conv1d", {"needs": ("wide",)}, "torch"),
        ("linear_recurrence", {}, "triton"),
        ("linear_recurrence", {"chosen": "fla"}, "fla"),
        ("gated_linear_attention", {}, "fla"),
        ("gated_linear_attention", {"dtype": FP32}, "torch"),
        ("gated_linear_attention", {"needs": ("gradients", "deterministic")}, "torch"),
        ("gated_linear_attention", {"missing": {"fla": "not installed"}}, "torch"),
        ("gated_linear_attention", {"chosen": "triton"}, "fla"),
        ("gated_linear_attention", {"chosen": "fla", "dtype": FP32}, "fla"),
        ("gated_linear_attention", {"chosen": "fla", "dtype": torch.float64}, "torch"),
        ("gated_linear_attention", {"chosen": "torch"}, "torch"),
        ("gated_linear_attention", {"chosen": "fla", "device": "cpu", "capability": None}, "torch"),
        ("rms_norm", {"chosen": "flash_attn"}, "triton"),
        ("attention", {"chosen": "flex", "device": "cpu", "capability": None}, "flex"),
    ],
)
def test_other_ops_and_names(op, changes, want):
    assert taken(op, **changes).backend == want


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dtype": FP32}, "no float32"),
        ({"capability": (7, 5)}, "needs sm_80 or newer"),
        ({"needs": ("table",)}, "no bias by distance but ALiBi's"),
        ({"head_dim": 320}, "heads of at most 256, here 320"),
        ({"head_dim": 60}, "heads of a multiple of 8, here 60"),
        ({"missing": {"flash_attn": "flash-attn is not installed"}}, "flash-attn is not installed"),
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_the_reason_and_what_would(changes, why):
    with pytest.raises(ArgumentError) as caught:
        taken("attention", "flash_attn", **changes)
    text = str(caught.value)
    assert text.startswith(f"kernels.backend: given flash_attn for attention: {why}; allowed: auto | ")
    assert "flash_attn" not in text.split("allowed: ")[1].split(" | ")
    assert "\n" not in text


def test_every_other_backend_has_its_reason_for_every_call():
    for op in OPS:
        for needs in ((), *((feature,) for feature in FEATURES[op])):
            for dtype, device, missing in itertools.product(
                (torch.float64, FP32, BF16),
                ("cuda", "cpu", "meta"),
                (NONE, dict.fromkeys(("triton", "fla", "flash_attn", "mamba_ssm", "causal_conv1d"), "x")),
            ):
                choice = taken(op, "auto", missing, dtype, device, None, needs)
                assert choice.reason
                assert {choice.backend, *choice.against} == ABILITIES[op].keys()
                assert all(choice.against.values())
                request = Request(op, device, dtype, frozenset(needs), 64)
                assert misfit(ABILITIES[op][choice.backend], request, FEATURES[op]) is None
                assert choice.backend not in missing


def test_what_is_offered_has_words_and_torch_can_do_all_of_it():
    assert ABILITIES.keys() == FEATURES.keys() == OPS.keys()
    for op, abilities in ABILITIES.items():
        assert all(ability.offers <= FEATURES[op].keys() for ability in abilities.values())
        assert abilities["torch"].offers == FEATURES[op].keys()
