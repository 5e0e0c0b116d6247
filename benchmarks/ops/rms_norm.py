"""rms_norm with Mamba2's gate, and with the residual sum, beside PyTorch's, transformers', and on a GPU the peers'
kernels."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from lcprobe_kernels.peers import triton_code
from lcprobe_kernels.rms_norm import add_rms_norm, reference, rms_norm
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward

NORM_EPS = 1e-5
Norm = Callable[[Tensor, Tensor, Tensor], Any]
"""(x, gate or residual, weight) -> y, and with a residual the sum."""


def cases(gpu: bool) -> list[Case]:
    """The gated norm at Mamba2's inner width, and the block's norm with its residual at d_model."""
    if gpu:
        return [_case(kind, 16384, d, torch.bfloat16, "cuda") for kind, d in (("gate", 5120), ("residual", 2560))]
    shapes = (("gate", 1024, 128), ("gate", 2048, 1024), ("residual", 1024, 64), ("residual", 2048, 512))
    return [_case(*shape, torch.float32, "cpu") for shape in shapes]


def _case(kind: str, rows: int, d: int, dtype: torch.dtype, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    x, weight, dy = draw(rows, d).to(dtype).requires_grad_(), draw(d).requires_grad_(), draw(rows, d).to(dtype)
    beside = (draw(rows, d).to(dtype) if kind == "gate" else draw(rows, d)).requires_grad_()
    leaves, gradients = [x, beside, weight], [dy] if kind == "gate" else [dy, draw(rows, d)]

    def tuple_of(op: Norm) -> Callable[..., tuple[Tensor, ...]]:
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs = op(*inputs)
            return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)

        return run

    def ours(x: Tensor, beside: Tensor, weight: Tensor) -> Any:
        return (
            rms_norm(x, weight, NORM_EPS, gate=beside)
            if kind == "gate"
            else add_rms_norm(x, beside, weight, NORM_EPS)
        )

    def definition(x: Tensor, beside: Tensor, weight: Tensor) -> Any:
        if kind == "gate":
            return reference(x, weight, NORM_EPS, gate=beside)[0]
        return reference(x, weight, NORM_EPS, residual=beside)[:2]

    def check() -> float:
        part = [x[:200], beside[:200], weight]
        return error_against(tuple_of(definition), tuple_of(ours), part, [t[:200] for t in gradients])

    def step(op: Norm) -> Callable[[], None]:
        return forward_backward(tuple_of(op), leaves, gradients)

    # gate: x, z in, y out; x, z, dy in, dx, dz out. residual: x, r in, y, sum out; sum, dy, dsum in, dx, dr out (one
    # sum)
    moved = 8 * x.nbytes if kind == "gate" else 4 * x.nbytes + 5 * beside.nbytes
    return Case(
        f"rms_norm, {kind}", f"{rows} x {d}", dtype_name(dtype), step(ours),
        {k: step(v) for k, v in _peers(kind, d, device).items()}, check, 20.0 * rows * d, moved,
    )  # fmt: skip


def _peers(kind: str, d: int, device: str) -> dict[str, Norm]:
    """The peers that can be imported here, under our signature."""
    peers: dict[str, Norm] = {}
    if kind == "residual":

        def plain(x: Tensor, residual: Tensor, weight: Tensor) -> Any:
            total = residual + x
            return F.rms_norm(total, (d,), weight, NORM_EPS).to(x.dtype), total

        peers["torch add, rms_norm"] = plain
    elif find_spec("transformers") is not None:
        from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

        module = MambaRMSNormGated(d, d, NORM_EPS)

        def gated(x: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
            return torch.func.functional_call(module, {"weight": weight}, (x, gate))

        peers["transformers (Mamba2)"] = gated
    if device == "cuda" and find_spec("mamba_ssm") is not None:
        norms = "mamba_ssm.ops.triton.layernorm_gated" if kind == "gate" else "mamba_ssm.ops.triton.layer_norm"

        def mamba(x: Tensor, beside: Tensor, w: Tensor) -> Any:
            code = triton_code(norms)
            if kind == "gate":
                return code.rmsnorm_fn(x, w, None, z=beside, eps=NORM_EPS, norm_before_gate=False)
            return code.rms_norm_fn(x, w, None, residual=beside, eps=NORM_EPS, prenorm=True, residual_in_fp32=True)

        peers["mamba-ssm"] = mamba
    if device == "cuda" and kind == "residual" and find_spec("liger_kernel") is not None:
        liger = "liger_kernel.ops.fused_add_rms_norm"
        peers["Liger"] = lambda x, r, w: triton_code(liger).LigerFusedAddRMSNormFunction.apply(x, r, w, NORM_EPS)
    return peers
