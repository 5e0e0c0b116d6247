"""Which implementation an op uses. `auto` picks by device; a named backend is used, or refused with a one-line error.

torch               plain PyTorch in matrix form: any device, any float dtype
triton              our Triton kernels: a GPU, or (slowly, for tests) a CPU under TRITON_INTERPRET=1
mamba_ssm, fla      the peers' kernels, where they are installed and the op has a counterpart
flex                PyTorch's FlexAttention, for attention; on a CPU without gradients
flash_attn          refused: PyTorch's own attention includes its kernels
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from lcprobe_kernels import OPS
from lcprobe_kernels.errors import ArgumentError

BACKENDS = ("auto", "triton", "torch", "mamba_ssm", "flash_attn", "fla", "flex")
FLOAT32_PRODUCTS = ("tf32x3", "tf32")
"""How Triton kernels multiply float32 operands on tensor cores: three products of TF32 that keep nearly all bits, or
one that keeps ten."""
_chosen, _float32 = "auto", "tf32x3"


def use(backend: str) -> None:
    """Set the backend of every op in this process. Raises ArgumentError for one that cannot work here."""
    global _chosen
    if backend not in BACKENDS:
        raise ArgumentError("kernels.backend", repr(backend), " | ".join(BACKENDS))
    why = missing(backend)
    if why is not None:
        raise ArgumentError("kernels.backend", repr(backend), f"one that works here ({why})")
    _chosen = backend


def use_float32_products(products: str) -> None:
    """Set how this process's Triton kernels multiply float32. Raises ArgumentError for another name."""
    global _float32
    if products not in FLOAT32_PRODUCTS:
        raise ArgumentError("kernels.float32", repr(products), " | ".join(FLOAT32_PRODUCTS))
    _float32 = products


def float32_products() -> str:
    """One of FLOAT32_PRODUCTS."""
    return _float32


@contextmanager
def using(backend: str) -> Iterator[None]:
    """`use` inside a `with` block; the previous choice is restored after it."""
    before = _chosen
    use(backend)
    try:
        yield
    finally:
        use(before)


def missing(backend: str) -> str | None:
    """The reason why a backend cannot work on this machine; None when it can."""
    gpu = torch.cuda.is_available()
    if backend in ("auto", "torch", "flex"):
        return None
    if backend == "triton":
        if find_spec("triton") is None:
            return "triton is not installed: pip install triton"
        return None if gpu or interpreting() else "triton needs a GPU; TRITON_INTERPRET=1 runs it slowly on a CPU"
    if backend == "flash_attn":
        return "no op has it as a peer: attention takes its kernels through PyTorch's scaled_dot_product_attention"
    module = {"mamba_ssm": "mamba_ssm", "fla": "fla"}[backend]
    if find_spec(module) is None:
        return f"{module} is not installed: pip install 'lcprobe[cuda]'"
    return None if gpu else f"{module} needs a GPU"


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def named(op: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether an op uses a backend that was chosen by name and is not PyTorch's own, so that no other may replace
    it."""
    return _chosen != "torch" and path_of(op, device, dtype) == _chosen


def path_of(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """The implementation that an op uses for tensors of this device and dtype: torch, triton, or a peer's name.

    float64 always uses torch: kernels accumulate in float32. If the chosen peer lacks the op, `auto` decides. For an
    op without Triton kernels of ours, triton means fla's in half precision (in float32 their products have TF32's ten
    bits: only the backend fla uses them for all dtypes), and torch elsewhere.
    """
    if dtype == torch.float64:
        return "torch"
    if _chosen == "torch":
        return "torch"
    if _chosen in OPS[op].peers and (
        device.type == "cuda" or _chosen == "flex"
    ):  # flex works on a CPU, without gradients
        return _chosen
    if _chosen != "triton" and not (device.type == "cuda" and find_spec("triton") is not None):
        return "torch"
    if OPS[op].own_triton:
        return "triton"
    half = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return "fla" if half and missing("fla") is None else "torch"


def unrecorded(like: Tensor) -> bool:
    """Whether an op on tensors like this one may call what it registers: on a CPU, where nothing records gradients,
    traces or compiles. The dispatch of a registered op takes longer than the work for one token."""
    eager = not torch.is_grad_enabled() and type(like) is Tensor and like.is_cpu
    return eager and not torch.compiler.is_compiling()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast: none where there is none, since entering one takes as long as a small op."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def implementation(op: str, like: Tensor, triton: str) -> ModuleType:
    """The op's module for tensors like this one: `triton` by name where `path_of` chooses Triton, else `cpu`."""
    name = triton if path_of(op, like.device, like.dtype) == "triton" else "cpu"
    return _module(f"lcprobe_kernels.{op}.{name}")


_module = cache(import_module)
