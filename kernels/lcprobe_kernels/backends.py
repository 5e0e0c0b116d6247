"""Which implementation an op uses. `auto` picks by device and by what a call needs (`choosing`, `abilities`); a named
backend is used, or refused with a one-line error.

torch               plain PyTorch in matrix form: any device, any float dtype
triton              our Triton kernels: a GPU, or (slowly, for tests) a CPU under TRITON_INTERPRET=1
mamba_ssm, causal_conv1d, flash_attn, flash_attn_4, fla   the peers' kernels, where installed, for ops that they have
flex                PyTorch's FlexAttention, for attention; on a CPU without gradients
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from lcprobe_kernels.abilities import ABILITIES, FEATURES
from lcprobe_kernels.choosing import Choice, Request, choose
from lcprobe_kernels.errors import ArgumentError
from lcprobe_kernels.peers import PEERS, unusable, versions

BACKENDS = ("auto", "triton", "torch", *PEERS, "flex")
FLOAT32_PRODUCTS = ("tf32x3", "tf32")
"""How Triton kernels multiply float32 operands on tensor cores: three products of TF32 that keep nearly all bits, or
one that keeps ten."""
_chosen, _float32 = "auto", "tf32x3"
_requests: list[Request] | None = None
_assumed: str | None = None


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


@contextmanager
def assuming(path: str) -> Iterator[None]:
    """Inside a `with` block ops take this path, whether or not it works here, on tensors without values (meta, fake):
    what they keep for a backward pass has the sizes that it has there. Attention keeps what fused kernels keep."""
    global _assumed
    before, _assumed = _assumed, path
    try:
        yield
    finally:
        _assumed = before


@contextmanager
def recording() -> Iterator[list[Request]]:
    """Inside a `with` block: what every call of an op asks for, in order. Tensors may be on the meta device."""
    global _requests
    before, _requests = _requests, []
    try:
        yield _requests
    finally:
        _requests = before


def missing(backend: str, gpu: bool | None = None) -> str | None:
    """The reason why a backend cannot work on this machine; None when it can. gpu: whether to suppose one; None: as
    it is here. Peers are looked up, not imported, unless there is a GPU that would run them."""
    here = torch.cuda.is_available()
    gpu = here if gpu is None else gpu
    if backend in ("auto", "torch", "flex", "sdpa"):
        return None
    if backend == "triton":
        if find_spec("triton") is None:
            return "triton is not installed: pip install triton"
        return None if gpu or interpreting() else "triton needs a GPU; TRITON_INTERPRET=1 runs it slowly on a CPU"
    why = unusable(backend, try_import=here)
    return why if why is not None or gpu else f"{backend} needs a GPU"


def interpreting() -> bool:
    """Whether Triton kernels run in Triton's interpreter."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def path_of(op: str, device: torch.device, dtype: torch.dtype, needs: tuple[str, ...] = (), head_dim: int = 0) -> str:
    """The implementation that an op uses for tensors of this device and dtype: a name in ABILITIES[op].

    needs: features that the call needs, of FEATURES[op]. Raises ArgumentError where a backend that was chosen by name
    cannot serve it.
    """
    if _assumed is not None:
        return "triton" if op == "attention" else _assumed
    if device.type == "cpu" and _chosen in ("auto", "torch"):
        return "torch"
    return _decided(op, device.type, device.index, dtype, needs, head_dim, _chosen)


def on_cpu(device: torch.device) -> bool:
    """Whether tensors of this device are computed on a CPU; inside `assuming`, whether those are whose path it names.
    By this ops choose how much they do at once."""
    return device.type == "cpu" if _assumed is None else _assumed == "torch"


def note(op: str, like: Tensor, needs: tuple[str, ...] = (), head_dim: int = 0) -> None:
    """Record a call, inside `recording`."""
    if _requests is not None:
        _requests.append(Request(op, like.device.type, like.dtype, frozenset(needs), head_dim))


def choice_for(request: Request, chosen: str, gpu: bool | None = None) -> Choice:
    """The backend that a call gets with `kernels.backend=chosen` and what is installed here, with reasons. gpu: as
    for `missing`. Raises ArgumentError as `choose` does."""
    abilities = ABILITIES[request.op]
    reasons = {name: missing(name, gpu) for name in abilities}
    absent = {name: why for name, why in reasons.items() if why is not None}
    return choose(request, chosen, abilities, FEATURES[request.op], absent, versions())


@torch.compiler.assume_constant_result  # traced for one choice; `chosen` is an argument, so that it is guarded
def _decided(
    op: str, device: str, index: int | None, dtype: torch.dtype, needs: tuple[str, ...], head_dim: int, chosen: str
) -> str:
    return _decided_once(op, device, index, dtype, needs, head_dim, chosen)


@lru_cache(maxsize=1024)
def _decided_once(
    op: str, device: str, index: int | None, dtype: torch.dtype, needs: tuple[str, ...], head_dim: int, chosen: str
) -> str:
    capability = torch.cuda.get_device_capability(index) if device == "cuda" and torch.cuda.is_available() else None
    return choice_for(Request(op, device, dtype, frozenset(needs), head_dim, capability), chosen).backend


def deterministic() -> tuple[str, ...]:
    """The need for gradients that repeat bit by bit, where torch.use_deterministic_algorithms asks for them."""
    return ("deterministic",) if torch.are_deterministic_algorithms_enabled() else ()


def unrecorded(like: Tensor) -> bool:
    """Whether an op on tensors like this one may call what it registers: on a CPU, where nothing records gradients,
    traces or compiles. The dispatch of a registered op takes longer than the work for one token."""
    eager = not torch.is_grad_enabled() and type(like) is Tensor and like.is_cpu
    return eager and not torch.compiler.is_compiling()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast: none where there is none, since entering one takes as long as a small op, and none
    on the meta device, which has no autocast."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def implementation(op: str, like: Tensor, triton: str) -> ModuleType:
    """The op's module for tensors like this one: `triton` by name where `path_of` chooses Triton, else `cpu`."""
    return module_of(op, path_of(op, like.device, like.dtype), triton)


def module_of(op: str, path: str, triton: str) -> ModuleType:
    """The op's module for a backend: `triton` by name, the adapter of a peer (`package` of one that is called as the
    op is, since a package holds the op under that name), else `cpu`."""
    name = triton if path == "triton" else "package" if path == op else path if path in PEERS else "cpu"
    return _module(f"lcprobe_kernels.{op}.{name}")


_module = cache(import_module)
