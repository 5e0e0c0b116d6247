"""ssd and the Mamba2 mixer around it, beside transformers' mixer on a CPU, mamba-ssm and flash-linear-attention on a
GPU."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from lcprobe_kernels.peers import triton_code
from lcprobe_kernels.ssd import reference, ssd
from torch import Tensor

from benchmarks.ops.case import Case, dtype_name, error_against, forward_backward, largest_error
from lcprobe.models.mixers.mamba2 import Mamba2, Mamba2Config
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build


def cases(gpu: bool) -> list[Case]:
    """The op at growing lengths, and on a CPU the whole mixer at d_model 512."""
    if gpu:
        shapes = [(16384 // length or 1, length, 80, 64, 128) for length in (2048, 4096, 16384, 65536)]
        return [_op(*shape, torch.bfloat16, "cuda") for shape in shapes]
    shapes = [(2, 1024, 16, 64, 128), (1, 2048, 16, 64, 128), (1, 8192, 4, 32, 32), (1, 65536, 4, 32, 32)]
    return [_op(*shape, torch.float32, "cpu") for shape in shapes] + [_mixer(1, 2048, 512), _mixer(2, 512, 256)]


def _op(batch: int, length: int, heads: int, p: int, n: int, dtype: torch.dtype, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    x, B, C = draw(batch, length, heads, p), draw(batch, length, 1, n), draw(batch, length, 1, n)
    dt, dy = draw(batch, length, heads) - 3, draw(batch, length, heads, p)
    A, D = -torch.arange(1.0, heads + 1, device=device), torch.ones(heads, device=device)
    bias = torch.zeros(heads, device=device)
    leaves = [t.requires_grad_() for t in (x, dt, A, B, C, D, bias)]

    def check() -> float:
        def run(op: Callable[..., Any]) -> Callable[..., tuple[Tensor]]:
            return lambda *inputs: (op(*inputs)[0],)

        part = [t[:1, :300] if t.dim() > 1 else t for t in leaves]
        return error_against(run(reference), run(ssd), part, [dy[:1, :300]])

    q = 64
    tokens, size = batch * length, 2 if dtype == torch.bfloat16 else 4
    forward = tokens * heads * p * (2 * q / 2 + 4 * n) + tokens * q * n  # causal half of a chunk's product
    moved = tokens * (heads * p * 5 + n * 6 + heads * 3) * size
    return Case(
        "ssd", f"{batch} x {length} x {heads} x {p}, state {n}", dtype_name(dtype),
        forward_backward(lambda *a: ssd(*a)[0], leaves, [dy]),
        {k: forward_backward(v, leaves, [dy]) for k, v in _peers(device).items()}, check, 3 * forward, moved,
    )  # fmt: skip


def _peers(device: str) -> dict[str, Callable[..., Any]]:
    """The scans that can be imported here, under our signature."""
    peers: dict[str, Callable[..., Any]] = {}
    if device == "cpu":
        return peers
    if find_spec("mamba_ssm") is not None:
        peers["mamba-ssm"] = lambda x, dt, A, B, C, D, bias: triton_code(
            "mamba_ssm.ops.triton.ssd_combined"
        ).mamba_chunk_scan_combined(x, dt, A, B, C, 256, D=D, dt_bias=bias, dt_softplus=True)
    if find_spec("fla") is not None:

        def simple_gla(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor) -> Tensor:
            soft = torch.nn.functional.softplus(dt.float() + bias)
            heads = x.shape[2]
            q, k = C.expand(-1, -1, heads, -1), B.expand(-1, -1, heads, -1)
            out, _ = triton_code("fla.ops.simple_gla").chunk_simple_gla(
                q, k, (x * soft[..., None]).to(x.dtype), soft * A, scale=1.0
            )
            return out + D[:, None].to(x.dtype) * x

        peers["flash-linear-attention"] = simple_gla
    return peers


def _mixer(batch: int, length: int, d_model: int) -> Case:
    """Projections, convolution, scan, gated norm: all of a Mamba2 layer."""
    import transformers
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    ours = Mamba2(build(Mamba2Config, {}, "mamba2"), d_model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            ours.init_parameter(name, parameter, generator)
    peers: dict[str, Any] = {}
    for chunk in (256, 64):  # transformers' own default, and the size that is faster on a CPU
        config = transformers.Mamba2Config(
            hidden_size=d_model, num_heads=2 * d_model // 64, head_dim=64, state_size=128, n_groups=1, expand=2,
            conv_kernel=4,
            chunk_size=chunk, num_hidden_layers=1,
        )  # fmt: skip
        peers[f"transformers, chunk {chunk}"] = Mamba2Mixer(config, layer_idx=0)
    names = {"conv_weight": "conv1d.weight", "conv_bias": "conv1d.bias", "norm_weight": "norm.weight"}
    weights = {names.get(k, k): v for k, v in ours.state_dict().items()}
    weights["conv1d.weight"] = weights["conv1d.weight"][:, None]
    for peer in peers.values():
        peer.load_state_dict(weights)
    x = torch.randn(batch, length, d_model, generator=generator).requires_grad_()
    where = TokenContext(torch.arange(length))
    dy = torch.randn(x.shape, generator=generator)

    def check() -> float:
        part = x[:, :256].detach().requires_grad_()
        peer = peers["transformers, chunk 64"]

        def judged(y: Tensor, parameters: list[Tensor]) -> list[Tensor]:
            return [y.detach(), *torch.autograd.grad(y, [part, *parameters], dy[:, :256])]

        own, its = dict(ours.named_parameters()), dict(peer.named_parameters())
        mine = judged(ours(part, TokenContext(torch.arange(256)))[0], list(own.values()))
        return largest_error(mine, judged(peer(part), [its[names.get(k, k)] for k in own]))

    tokens = batch * length
    flops = 3 * tokens * ours.cost(ours.config, d_model, length).flops
    return Case(
        "mamba2 mixer", f"{batch} x {length} x {d_model}", "float32",
        lambda: torch.autograd.backward(ours(x, where)[0], dy),
        {k: _backward(peer, x, dy) for k, peer in peers.items()},
        check, flops, 4.0 * tokens * d_model * 40,
    )  # fmt: skip


def _backward(module: Any, x: Tensor, dy: Tensor) -> Callable[[], None]:
    return lambda: torch.autograd.backward(module(x), dy)
