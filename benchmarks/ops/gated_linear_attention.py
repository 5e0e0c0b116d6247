"""gated_linear_attention in four of its forms, beside the recurrence, transformers' chunked PyTorch, and on a GPU
fla's kernels."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from lcprobe_kernels import backends
from lcprobe_kernels.gated_linear_attention import fla, gated_linear_attention, reference
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward

RECURRENCES = ("gla", "rwkv6", "gated delta", "rwkv7")


def cases(gpu: bool) -> list[Case]:
    """2.7 B shapes on a GPU; on a CPU d_model 512."""
    if gpu:
        return [
            _case(form, 16384 // n or 1, n, 40, 64, torch.bfloat16, "cuda")
            for form in RECURRENCES
            for n in (2048, 16384, 65536)
        ]
    return [_case(form, 1, 1024, 8, 64, torch.float32, "cpu") for form in RECURRENCES] + [
        _case("gla", 1, 8192, 8, 64, torch.float32, "cpu")
    ]


def _case(form: str, batch: int, length: int, heads: int, d: int, dtype: torch.dtype, device: str) -> Case:
    given = _inputs(form, batch, length, heads, d, dtype, device)
    leaves = [x.requires_grad_() for x in given.values()]
    do = torch.randn_like(given["v"])

    def by_name(op: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *inputs: op(**dict(zip(given, inputs, strict=True)))

    def check() -> float:
        def run(op: Callable[..., Any]) -> Callable[..., tuple[Tensor]]:
            return lambda *inputs: (by_name(op)(*inputs)[0],)

        part = [x if name == "bonus" else x[:1, :200] for name, x in given.items()]
        return error_against(run(reference), run(gated_linear_attention), part, [do[:1, :200]])

    def step(op: Callable[..., Tensor]) -> Callable[[], None]:
        return forward_backward(by_name(op), leaves, [do])

    peers = {name: step(op) for name, op in _peers(form, length, device).items()}
    numbers = batch * length * heads * d
    inputs = sum(x.nbytes for x in given.values())
    # the forward pass writes and reads S, and with corrections computes a^T S and b z^T
    flops = 3 * numbers * d * (4 if form in ("gla", "rwkv6") else 8)
    # both passes read all inputs and the backward pass writes their gradients; o is written and do read, with one to
    # spare
    moved = 3 * inputs + 3 * do.nbytes
    name = f"{form}: {batch} x {length} x {heads} x {d}"
    return Case(
        "gated_linear_attention", name, dtype_name(dtype), step(lambda **x: gated_linear_attention(**x)[0]),
        peers, check, flops, moved,
    )  # fmt: skip


def _inputs(
    form: str, batch: int, length: int, heads: int, d: int, dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    shape = (batch, length, heads, d)
    given = {"q": draw(*shape), "k": F.normalize(draw(*shape), dim=-1), "v": draw(*shape)}
    given["log_decay"] = F.logsigmoid(draw(batch, length, heads, 1 if form == "gated delta" else d) + 3)
    if form == "rwkv6":
        given["bonus"] = draw(heads, d)
    if form == "gated delta":
        given["beta"] = draw(batch, length, heads).sigmoid()
    if form == "rwkv7":
        given["a"] = -F.normalize(draw(*shape), dim=-1)
        given["b"] = -given["a"] * draw(*shape).sigmoid()
    return {k: x.to(torch.float32 if k == "log_decay" else dtype) for k, x in given.items()}


def _peers(form: str, length: int, device: str) -> dict[str, Callable[..., Tensor]]:
    """The peers that can be imported here, under our signature; where ours uses fla, also our matrix products."""
    peers: dict[str, Callable[..., Tensor]] = {}
    if device == "cpu" and length <= 1024:
        peers["token by token"] = lambda **x: reference(**x)[0]
    if form == "gated delta" and find_spec("transformers") is not None:
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

        def qwen3_next(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
            return torch_chunk_gated_delta_rule(q, k, v, log_decay[..., 0], beta)[0]

        peers["transformers (Qwen3-Next, PyTorch)"] = qwen3_next
    if device == "cuda" and backends.missing("fla") is None:

        def direct(
            q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus=None, beta=None, a=None, b=None
        ) -> Tensor:
            return fla.run(q, k, v, log_decay, bonus, beta, None, a, b, q.shape[3] ** -0.5, None, None, None)[0]

        def products(**x: Any) -> Tensor:
            with backends.using("torch"):
                return gated_linear_attention(**x)[0]

        peers["flash-linear-attention"], peers["our matrix products"] = direct, products
    return peers
