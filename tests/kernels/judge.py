"""How the ops are tested: on every path that works here, against float64, with one rule for low precision."""

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
PATHS = [
    "torch",
    pytest.param("triton", marks=pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
UNITS = {torch.float32: 3, torch.float16: 1, torch.bfloat16: 1}
"""Units in the last place that an output may always be off by; rounding it costs half of one."""

Run = Callable[[Mapping[str, Tensor]], Iterable[Tensor | None]]


def outputs_and_gradients(
    run: Run, inputs: Mapping[str, Tensor], differentiable: Iterable[str], seed: int
) -> dict[str, Tensor]:
    """Outputs of `run` by number and gradients by name, for random output gradients drawn from `seed`."""
    wanted = set(differentiable)
    leaves = {k: v.detach().clone().requires_grad_(k in wanted) for k, v in inputs.items()}
    outputs = [out for out in run(leaves) if out is not None]
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for out in outputs:
        if out.requires_grad:
            weight = torch.randn(out.shape, generator=generator, dtype=torch.float64).mul_(16).round_().div_(16)
            weight = weight.to(
                out.device, out.dtype
            )  # exact in every dtype, so that no path pays for rounding its input
            total = total + (out * weight).sum().double()
    total.backward()
    results = {f"out{i}": out.detach() for i, out in enumerate(outputs)}
    return results | {f"d{k}": v.grad for k, v in leaves.items() if v.grad is not None}


def draw_starts(documents: str, batch: int, seqlen: int, seed: int) -> Tensor | None:
    """Where documents start (batch, seqlen): "none", "some" (a fifth of the tokens), or "one token each"."""
    if documents == "none":
        return None
    if documents == "one token each":
        return torch.ones(batch, seqlen, dtype=torch.bool, device=DEVICE)
    return (torch.rand(batch, seqlen, generator=torch.Generator().manual_seed(seed)) < 0.2).to(DEVICE)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Largest error over the largest value, for any dtypes and devices; infinite if their non-finite elements differ."""
    got, want = got.double().cpu(), want.double().cpu()
    if not want.numel():
        return 0.0
    if not torch.equal(torch.isfinite(got), torch.isfinite(want)):
        return float("inf")
    return float((got - want).nan_to_num().abs().max() / want.nan_to_num().abs().max().clamp_min(1e-30))


def same(got: Mapping[str, Tensor], want: Mapping[str, Tensor], bound: float) -> None:
    """Assert that every value is within `bound`, relatively."""
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        error = relative_error(got[name], value)
        assert error <= bound, f"{name}: relative error {error:.2e} > {bound:.0e}"


def widened(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs in float32, for the baseline whose sums and states are in float32."""
    return {k: v.float() for k, v in inputs.items()}


def at_most_twice(
    ours: Mapping[str, Tensor],
    plain: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    slack: float | Mapping[str, float] = 0.0,
) -> None:
    """Assert that our error is at most twice that of the plain path with sums and states in float32, rounded as ours
    is.

    All against float64. slack: allowed beyond that, for all values or by name; give the reason.
    """
    assert ours.keys() == plain.keys() == exact.keys()
    for name, value in exact.items():
        dtype = ours[name].dtype
        more = slack.get(name, 0.0) if isinstance(slack, Mapping) else slack
        allowed = 2 * relative_error(plain[name].to(dtype), value) + UNITS[dtype] * torch.finfo(dtype).eps + more
        error = relative_error(ours[name], value)
        assert error <= allowed, f"{name}: relative error {error:.2e} > {allowed:.2e}"
