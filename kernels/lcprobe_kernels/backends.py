"""Which implementation an op takes. `auto` picks by device; a named one is taken, or refused in one line.

torch      plain PyTorch in matrix form: any device, any float dtype
triton     our Triton kernels: a GPU, or (slowly, for tests) a CPU under TRITON_INTERPRET=1
mamba_ssm, fla      the peers' kernels, where they are installed and the op has a counterpart
flex            PyTorch's FlexAttention, for attention; on a CPU without gradients
flash_attn      refused: PyTorch's own attention holds its kernels
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from lcprobe_kernels.errors import ArgumentError

BACKENDS = ("auto", "triton", "torch", "mamba_ssm", "flash_attn", "fla", "flex")
PEERS: dict[str, tuple[str, ...]] = {
    "ssd": ("mamba_ssm",),
    "causal_conv1d": (),
    "rms_norm": (),
    "linear_recurrence": (),
    "linear_cross_entropy": (),
    "gated_linear_attention": ("fla",),
    "attention": ("flex",),
}
"""Ops, and the peers that can stand in for them."""
_chosen = "auto"


def use(backend: str) -> None:
    """Choose for every op from now on, in this process. Raises ArgumentError for a choice that cannot work here."""
    global _chosen
    if backend not in BACKENDS:
        raise ArgumentError("kernels.backend", repr(backend), " | ".join(BACKENDS))
    why = missing(backend)
    if why is not None:
        raise ArgumentError("kernels.backend", repr(backend), f"one that works here ({why})")
    _chosen = backend


@contextmanager
def using(backend: str) -> Iterator[None]:
    """`use` for a while."""
    before = _chosen
    use(backend)
    try:
        yield
    finally:
        use(before)


def missing(backend: str) -> str | None:
    """Why a backend cannot work on this machine; None when it can."""
    gpu = torch.cuda.is_available()
    if backend in ("auto", "torch", "flex"):
        return None
    if backend == "triton":
        if find_spec("triton") is None:
            return "triton is not installed: pip install triton"
        return None if gpu or interpreting() else "triton needs a GPU; TRITON_INTERPRET=1 runs it slowly on a CPU"
    if backend == "flash_attn":
        return "no op has it as a counterpart: attention takes its kernels through PyTorch's scaled_dot_product_attention"
    module = {"mamba_ssm": "mamba_ssm", "fla": "fla"}[backend]
    if find_spec(module) is None:
        return f"{module} is not installed: pip install 'lcprobe[cuda]'"
    return None if gpu else f"{module} needs a GPU"


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def named(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the path that an op takes is one that was asked for by name and is not PyTorch's own: no other may stand in."""
    return _chosen != "torch" and path_of(op, device, dtype) == _chosen


def path_of(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """The implementation that an op takes for tensors like these: torch, triton, or a peer's name.

    float64 always takes torch: kernels accumulate in float32. A chosen peer that lacks the op leaves it to `auto`.
    """
    if dtype == torch.float64:
        return "torch"
    automatic = "triton" if device.type == "cuda" and find_spec("triton") is not None else "torch"
    if _chosen in ("torch", "triton"):
        return _chosen
    if _chosen == "flex" and _chosen in PEERS[op]:
        return _chosen  # on a CPU too, without gradients
    return _chosen if _chosen in PEERS[op] and device.type == "cuda" else automatic
