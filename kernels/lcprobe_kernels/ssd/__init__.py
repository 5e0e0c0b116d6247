"""ssd: the state-space dual form of Mamba2 (Dao & Gu 2024, arXiv 2405.21060, eq. 6 and sec. 6).

    dt_t = clamp(softplus(dt_t + dt_bias), dt_limit)        a_t = exp(dt_t A),  A < 0 one scalar per head
    h_t  = a_t h_{t-1} + dt_t x_t B_t^T                      h: (head_dim, d_state), zero at a document's first token
    y_t  = h_t C_t + D x_t

`reference` is this recurrence. The fast forms (`cpu`, and Triton in `triton_fwd`, `triton_bwd`) cut the sequence into
chunks: with l = cumsum(dt A) inside a chunk of q tokens, E_ij = exp(l_i - l_j), S = C B^T kept where j <= i in one
document, X = dt x:

    Y = (S * E) X + exp(l) * (C H) + D x        H' = exp(l_q) H + B^T (exp(l_q - l) * X)

H enters the chunk, H' leaves it. Saved for the backward pass: step sizes, l, and every chunk's H in float32.
"""

from typing import Any, Optional

import torch
from torch import Tensor

from lcprobe_kernels.backends import deterministic, module_of, note, path_of, without_autocast
from lcprobe_kernels.direct import of_backward, with_gradients
from lcprobe_kernels.errors import (
    ArgumentError,
    check_first,
    check_flag,
    check_like,
    check_no_tangent,
    check_tensor,
    refuse_second_derivative,
)
from lcprobe_kernels.packed import resolve_starts
from lcprobe_kernels.ssd.reference import reference, step, step_size
from lcprobe_kernels.ssd.tiles import LARGEST, chunk_that_fits

__all__ = ["reference", "ssd", "ssd_step"]
NAME = "ssd"
DEFAULT_CHUNK_SIZE = 64
"""Tokens per chunk by default in PyTorch: on a CPU exp costs q per token. On a GPU state traffic costs 1/q, so Triton
takes the largest that fits."""
MAMBA_SSM_CHUNK_SIZE = 256
"""mamba-ssm's own default."""
LONG = 1 << 31
"""Numbers of x from which on offsets of 32 bits overflow."""


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    initial_state: Tensor | None = None,
    starts: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    chunk_size: int | None = None,
    return_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scan a sequence of any length; accumulation and state in float32 (float64 for float64 inputs).

    x: (batch, seqlen, n_heads, head_dim). dt: (batch, seqlen, n_heads), before bias and softplus. A, D, dt_bias:
    (n_heads,), A <= 0 (checked on a CPU only). B, C: (batch, seqlen, n_groups, d_state), n_groups divides n_heads.
    initial_state: (batch, n_heads, head_dim, d_state). starts: (batch, seqlen) bool, True where a token begins a
    document and the state resets; or cu_seqlens: (n_documents + 1,), see `packed.starts_of`. chunk_size changes speed
    and rounding, nothing else.

    Returns y like x, and with `return_state` the final state (batch, n_heads, head_dim, d_state). Raises
    ArgumentError for other shapes, dtypes, devices and values, in forward mode (jvp) and for a second derivative,
    which only `reference` has. An empty batch gives empty outputs.

    NaN or infinity in a token: outputs before it, of other documents and of other heads (of other groups, in B or C)
    are as without it; from it to its document's end they are NaN where it reaches them, never finite garbage. In
    Triton NaN in some of x's head_dim may make all of the head NaN. Not confined: gradients, which may be NaN in all
    of the row; PyTorch's path on a GPU and mamba-ssm, where NaN may also fill its chunk and the documents after it.
    """
    starts = resolve_starts(NAME, x, starts, cu_seqlens, initial_state)
    _check(x, dt, A, B, C, D, dt_bias, dt_limit, initial_state, starts, chunk_size)
    check_flag(NAME, "return_state", return_state)
    low, high = float(dt_limit[0]), float(dt_limit[1])
    needs = _needs(x, dt, initial_state, starts, return_state)
    note(NAME, x, needs)
    acc_dtype = torch.promote_types(x.dtype, torch.float32)
    A, initial_state = A.to(acc_dtype), None if initial_state is None else initial_state.to(acc_dtype)
    D, dt_bias = None if D is None else D.to(acc_dtype), None if dt_bias is None else dt_bias.to(acc_dtype)
    B, C = B.to(x.dtype), C.to(x.dtype)
    with without_autocast(x.device):  # decays and states stay in float32 or wider
        if x.shape[1] == 1:
            state = (
                x.new_zeros(x.shape[0], *x.shape[2:], B.shape[3], dtype=acc_dtype)
                if initial_state is None
                else initial_state
            )
            if starts is not None:
                state = state.where(~starts[:, :, None, None], torch.zeros((), dtype=acc_dtype, device=x.device))
            y, state = _one(x[:, 0], state, dt[:, 0], A, B[:, 0], C[:, 0], D, dt_bias, dt_limit)
            return y[:, None], state if return_state else None
        check_no_tangent(NAME, x, dt, A, B, C, D, dt_bias, initial_state)
        path = path_of(NAME, x.device, x.dtype, needs)
        y, state, *_ = _differentiable(
            x, dt, A, B, C, D, dt_bias, initial_state, starts, low, high, chunk_size or 0, return_state, path
        )
    return y, state if return_state else None


def _needs(
    x: Tensor, dt: Tensor, initial_state: Tensor | None, starts: Tensor | None, return_state: bool
) -> tuple[str, ...]:
    """The features of `abilities.FEATURES` that a call needs."""
    needs = [name for name, given in (("documents", starts), ("initial state", initial_state)) if given is not None]
    if return_state:
        needs.append("final state")
    if torch.is_grad_enabled() and (x.requires_grad or dt.requires_grad):
        needs += ["gradients", *deterministic()]
    if x.numel() >= LONG:
        needs.append("long")
    return tuple(needs)


def ssd_step(
    x: Tensor,
    state: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
) -> tuple[Tensor, Tensor]:
    """One token of decoding. x: (batch, n_heads, head_dim); dt: (batch, n_heads); B, C: (batch, n_groups, d_state);
    state: (batch, n_heads, head_dim, d_state), float32 or wider -> y like x, and the new state.

    Raises ArgumentError as `ssd` does.
    """
    for name, t, dims in (("x", x, "n_heads, head_dim"), ("dt", dt, "n_heads"), ("B", B, "n_groups, d_state")):
        check_tensor("ssd_step", name, t)
        if t.dim() != 2 + dims.count(","):
            raise ArgumentError(f"ssd_step: {name}", f"shape {tuple(t.shape)}", f"(batch, {dims})")
    for name, t in (("C", C), ("state", state)):
        check_tensor("ssd_step", name, t)
    y, after = ssd(
        x[:, None], dt[:, None], A, B[:, None], C[:, None], D, dt_bias,
        dt_limit=dt_limit, initial_state=state, return_state=True,
    )  # fmt: skip
    assert after is not None
    return y[:, 0], after


def _one(x, state, dt, A, B, C, D, dt_bias, dt_limit) -> tuple[Tensor, Tensor]:
    wide = x.to(A.dtype)
    y, state = step(state, wide, step_size(dt.to(A.dtype), dt_bias, dt_limit), A, B.to(A.dtype), C.to(A.dtype))
    return (y if D is None else y + D[:, None] * wide).to(x.dtype), state


@torch.library.custom_op("lcprobe::ssd_fwd", mutates_args=())
def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],  # noqa: UP045 - schemas are read from these
    dt_bias: Optional[Tensor],  # noqa: UP045
    initial_state: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    dt_min: float,
    dt_max: float,
    chunk_size: int,
    return_state: bool,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, final state (empty unless requested), and for backward: step sizes, l (batch, chunks, q, n_heads), and the
    states that enter the chunks (batch, chunks, n_groups, d_state, heads of a group x head_dim); the last three are
    empty for mamba_ssm. path: the backend, of ABILITIES."""
    if x.shape[0] == 0:
        return _shapes(
            x, dt, A, B, C, D, dt_bias, initial_state, starts, dt_min, dt_max, chunk_size, return_state, path
        )
    q, module = _chunk(x, chunk_size, path), module_of(NAME, path, "triton_fwd")
    return module.forward(x, dt, A, B, C, D, dt_bias, initial_state, starts, dt_min, dt_max, q, return_state)


@_forward.register_fake
def _shapes(x, dt, A, B, C, D, dt_bias, initial_state, starts, dt_min, dt_max, chunk_size, return_state, path):
    batch, seqlen, n_heads, p = x.shape
    g, n = B.shape[2:]
    q = _chunk(x, chunk_size, path)
    c, acc_dtype = -(-seqlen // q), A.dtype
    state = x.new_empty((batch, n_heads, p, n) if return_state else (0,), dtype=acc_dtype)
    if path == "mamba_ssm":
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        return y, state, *(x.new_empty(0, dtype=acc_dtype) for _ in range(3))
    steps = x.new_empty((batch, c, q, n_heads), dtype=acc_dtype)
    entering = x.new_empty((batch, c, g, n, n_heads // g * p), dtype=acc_dtype)
    return torch.empty_like(x, memory_format=torch.contiguous_format), state, steps, torch.empty_like(steps), entering


@torch.library.custom_op("lcprobe::ssd_bwd", mutates_args=())
def _backward(
    dy: Tensor,
    dfinal: Optional[Tensor],  # noqa: UP045
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],  # noqa: UP045
    dt_bias: Optional[Tensor],  # noqa: UP045
    starts: Optional[Tensor],  # noqa: UP045
    steps: Tensor,
    log: Tensor,
    entering: Tensor,
    dt_min: float,
    dt_max: float,
    initial_state: Optional[Tensor],  # noqa: UP045
    of_steps: bool,
    chunk_size: int,
    path: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dx, ddt, dA, dB, dC, dD, ddt_bias, dinitial_state; the last is empty without an initial state. of_steps: those
    of dt, A and dt_bias are wanted; else they are zeros, or on a GPU computed all the same."""
    given = (dy, dfinal, x, dt, A, B, C, D, dt_bias, starts)
    if not x.shape[0]:
        return _no_gradients(*given, steps, log, entering, dt_min, dt_max, initial_state, of_steps, chunk_size, path)
    module = module_of(NAME, path, "triton_bwd")
    if path == "mamba_ssm":
        return module.backward(*given, dt_min, dt_max, initial_state, _chunk(x, chunk_size, path))
    return module.backward(*given, steps, log, entering, dt_min, dt_max, initial_state is not None, of_steps)


@_backward.register_fake
def _no_gradients(
    dy, dfinal, x, dt, A, B, C, D, dt_bias, starts, steps, log, entering, dt_min, dt_max, initial_state, of_steps,
    chunk_size, path,
):  # fmt: skip
    batch, _, n_heads, p = x.shape
    like = lambda t: torch.zeros_like(t, memory_format=torch.contiguous_format)  # noqa: E731
    state = A.new_zeros((batch, n_heads, p, B.shape[3]) if initial_state is not None else (0,))
    return like(x), like(dt), like(A), like(B), like(C), like(A), like(A), state


_differentiate = of_backward(_backward)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, dt, A, B, C, D, dt_bias, initial_state, starts, dt_min, dt_max, chunk_size, _, path = inputs
    ctx.save_for_backward(x, dt, A, B, C, D, dt_bias, starts, *output[2:], initial_state)
    ctx.limits, ctx.settings = (dt_min, dt_max), (chunk_size, path)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Any, dfinal: Any, *_: Any) -> Any:
    x, dt, A, B, C, D, dt_bias, *rest, initial_state = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    of_steps = any(ctx.needs_input_grad[i] for i in (1, 2, 6))  # dt, A, dt_bias: constants where decays are fixed
    with without_autocast(x.device):  # also where backward() is called under autocast
        dx, ddt, dA, dB, dC, dD, dbias, dinitial = _differentiate(
            dy, dfinal, x, dt, A, B, C, D, dt_bias, *rest, *ctx.limits, initial_state, of_steps, *ctx.settings
        )
    initial = None if initial_state is None else dinitial
    return dx, ddt, dA, dB, dC, None if D is None else dD, None if dt_bias is None else dbias, initial, *[None] * 6


_differentiable = with_gradients(_forward, _save, _gradients)
refuse_second_derivative(NAME)


def _chunk(x: Tensor, chunk_size: int, path: str) -> int:
    if path == "mamba_ssm":
        return chunk_size or MAMBA_SSM_CHUNK_SIZE
    if path != "triton":
        return min(chunk_size or DEFAULT_CHUNK_SIZE, x.shape[1])
    from lcprobe_kernels.triton_tools import INTERPRETED_SHARED_MEMORY, shared_memory

    valueless = x.is_meta or type(x) is not Tensor
    room = INTERPRETED_SHARED_MEMORY if valueless else shared_memory()
    return chunk_that_fits(chunk_size or LARGEST, room, x.shape[3], x.dtype)


def _check(x, dt, A, B, C, D, dt_bias, dt_limit, initial_state, starts, chunk_size) -> None:
    check_first(NAME, "x", x, ("batch", "seqlen", "n_heads", "head_dim"))
    batch, seqlen, n_heads, head_dim = x.shape
    check_tensor(NAME, "B", B)
    if B.dim() != 4 or 0 in B.shape[2:] or n_heads % B.shape[2]:
        allowed = f"({batch}, {seqlen}, n_groups, d_state >= 1), n_groups dividing {n_heads}"
        raise ArgumentError(f"{NAME}: B", f"shape {tuple(B.shape)}", allowed)
    check_like(NAME, "dt", dt, (batch, seqlen, n_heads), ("x", x))
    check_like(NAME, "A", A, (n_heads,), ("x", x))
    checked = A.device.type == "cpu" and not torch.compiler.is_compiling()  # on a GPU the check would synchronise
    if checked and bool(((A.detach() > 0) & A.detach().isfinite()).any()):
        raise ArgumentError(f"{NAME}: A", "a positive number, which makes states grow", "numbers <= 0")
    check_like(NAME, "B", B, (batch, seqlen, *B.shape[2:]), ("x", x))
    check_like(NAME, "C", C, tuple(B.shape), ("x", x))
    state = (batch, n_heads, head_dim, B.shape[3])
    for name, tensor, shape in (
        ("D", D, (n_heads,)),
        ("dt_bias", dt_bias, (n_heads,)),
        ("initial_state", initial_state, state),
    ):
        if tensor is not None:
            check_like(NAME, name, tensor, shape, ("x", x))
    if starts is not None:
        check_like(NAME, "starts", starts, (batch, seqlen), ("x", x), torch.bool)
    pair = (
        isinstance(dt_limit, (tuple, list))
        and len(dt_limit) == 2
        and all(isinstance(v, (int, float)) for v in dt_limit)
    )
    if not pair or not 0 <= dt_limit[0] <= dt_limit[1]:
        raise ArgumentError(f"{NAME}: dt_limit", repr(dt_limit), "(low, high), 0 <= low <= high")
    if chunk_size is not None and (not isinstance(chunk_size, int) or isinstance(chunk_size, bool) or chunk_size < 1):
        raise ArgumentError(f"{NAME}: chunk_size", repr(chunk_size), "an integer >= 1, or None")
