"""linear_recurrence beside RecurrentGemma's loop, a plain loop, torch's associative scan, and on a GPU fla's HGRN
kernels."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from lcprobe_kernels.linear_recurrence import linear_recurrence, reference
from lcprobe_kernels.peers import triton_code
from torch import Tensor

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward


def cases(gpu: bool) -> list[Case]:
    """RG-LRU's 2,560 channels; a loop over time takes seconds at more than 2,048 tokens, so longer ones stand without
    it."""
    if gpu:
        return [_case(16384 // n or 1, n, 2560, torch.bfloat16, "cuda") for n in (2048, 4096, 16384, 65536)]
    shapes = [(8, 512, 256), (1, 1024, 2560), (1, 2048, 512), (1, 16384, 512), (1, 65536, 128)]
    return [_case(*shape, torch.float32, "cpu") for shape in shapes]


def _case(batch: int, length: int, d: int, dtype: torch.dtype, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, length, d)
    log_a = torch.rand(shape, generator=generator).mul_(-0.5).to(device).requires_grad_()
    b = torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
    dh = torch.randn(shape, generator=generator).to(device, dtype)

    def check() -> float:
        def run(op: Callable[..., tuple[Tensor, Tensor | None]]) -> Callable[..., tuple[Tensor]]:
            return lambda log_a, b: (op(log_a, b)[0],)

        return error_against(
            run(reference), run(linear_recurrence), [log_a[:1, -600:], b[:1, -600:]], [dh[:1, -600:]]
        )

    numbers = batch * length * d
    moved = 3 * log_a.nbytes + 5 * b.nbytes  # log_a, b in, h out; log_a, h, dh in, both gradients out
    return Case(
        "linear_recurrence", f"{batch} x {length} x {d}", dtype_name(dtype),
        forward_backward(lambda log_a, b: linear_recurrence(log_a, b)[0], [log_a, b], [dh]),
        {k: forward_backward(v, [log_a, b], [dh]) for k, v in _peers(length, device).items()}, check,
        8.0 * numbers, moved,
    )  # fmt: skip


def _peers(length: int, device: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The peers that can be imported here, under our signature."""
    peers: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"torch associative_scan": _associative}
    if device == "cpu" and length <= 2048:
        peers["token by token"] = lambda log_a, b: reference(log_a, b)[0]
        if find_spec("transformers") is not None:
            from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru

            def recurrent_gemma(log_a: Tensor, b: Tensor) -> Tensor:
                reset = torch.zeros(*b.shape[:2], 1, dtype=torch.bool)
                return RecurrentGemmaRglru._rnn_scan(None, b, log_a.exp(), reset, None)[0]  # pyright: ignore[reportArgumentType]

            peers["transformers (RecurrentGemma)"] = recurrent_gemma
    if device == "cuda" and find_spec("fla") is not None:
        peers["flash-linear-attention (HGRN, chunks)"] = lambda log_a, b: triton_code("fla.ops.hgrn").chunk_hgrn(
            b, log_a
        )[0]
        peers["flash-linear-attention (HGRN, walk)"] = lambda log_a, b: triton_code(
            "fla.ops.hgrn"
        ).fused_recurrent_hgrn(b, log_a)[0]
    return peers


def _associative(log_a: Tensor, b: Tensor) -> Tensor:
    from torch._higher_order_ops.associative_scan import associative_scan

    def after(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return one[0] * two[0], two[0] * one[1] + two[1]

    return associative_scan(after, (log_a.exp(), b.float()), 1, combine_mode="generic")[1].to(b.dtype)
