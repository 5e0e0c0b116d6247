"""causal_conv1d with SiLU beside PyTorch's grouped convolution, and on a GPU the causal-conv1d package and fla's
convolution."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from lcprobe_kernels.causal_conv1d import causal_conv1d, reference
from lcprobe_kernels.peers import triton_code
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward

WIDTH = 4


def cases(gpu: bool) -> list[Case]:
    """Mamba2's x, B, C: 5,376 channels at 2.7 B; 1,280 and 640 at d_model 512 and 256."""
    if gpu:
        return [_case(16384 // n or 1, n, 5376, torch.bfloat16, "cuda") for n in (2048, 16384, 65536)]
    return [_case(*shape, torch.float32, "cpu") for shape in ((8, 128, 256), (1, 2048, 1280), (1, 16384, 640))]


def _case(batch: int, length: int, channels: int, dtype: torch.dtype, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    x, dy = draw(batch, length, channels).requires_grad_(), draw(batch, length, channels)
    weight, bias = draw(channels, WIDTH).requires_grad_(), draw(channels).requires_grad_()
    leaves = [x, weight, bias]

    def check() -> float:
        def run(op: Callable[..., tuple[Tensor, Tensor | None]]) -> Callable[..., tuple[Tensor]]:
            return lambda *inputs: (op(*inputs, silu=True)[0],)

        return error_against(run(reference), run(causal_conv1d), [x[:1, :200], weight, bias], [dy[:1, :200]])

    numbers = batch * length * channels
    return Case(
        "causal_conv1d", f"{batch} x {length} x {channels}, width {WIDTH}", dtype_name(dtype),
        forward_backward(lambda *a: causal_conv1d(*a, silu=True)[0], leaves, [dy]),
        {k: forward_backward(v, leaves, [dy]) for k, v in _peers(device).items()}, check,
        numbers * (6 * WIDTH + 12), 5 * x.nbytes,  # x in, y out; x, dy in, dx out
    )  # fmt: skip


def _peers(device: str) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """The peers that can be imported here, under our signature."""

    def grouped(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (WIDTH - 1, 0))
        return F.silu(F.conv1d(padded, weight[:, None], bias, groups=x.shape[2])).transpose(1, 2)

    peers: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"torch conv1d, grouped": grouped}
    if device == "cuda" and find_spec("causal_conv1d") is not None:
        peers["causal-conv1d"] = lambda x, w, b: (
            triton_code("causal_conv1d").causal_conv1d_fn(x.transpose(1, 2), w, b, activation="silu").transpose(1, 2)
        )
    if device == "cuda" and find_spec("fla") is not None:
        peers["flash-linear-attention"] = lambda x, w, b: triton_code("fla.modules.convolution").causal_conv1d(
            x, w, b, activation="silu"
        )[0]
    return peers
