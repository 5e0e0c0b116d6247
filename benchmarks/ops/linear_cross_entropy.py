"""linear_cross_entropy beside torch's cross-entropy of all logits, and on a GPU Liger-Kernel's fused form."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from lcprobe_kernels.linear_cross_entropy import linear_cross_entropy, reference
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ops.case import Case, dtype_name, error_against

Z_LOSS_AND_SOFT_CAP = {"z_loss": 1e-4, "soft_cap": 30.0}


def cases(gpu: bool) -> list[Case]:
    """Vocabularies of GPT-NeoX (50,288) and Gemma (256,000) on a GPU; on a CPU what trains there, and once the
    former."""
    if gpu:
        shapes = [
            (2048, 2560, 50288),
            (8192, 2560, 50288),
            (32768, 2560, 50288),
            (2048, 2560, 256000),
            (8192, 2560, 256000),
        ]
        return [
            _case(*shape, torch.bfloat16, "cuda", options)
            for shape in shapes
            for options in ({}, Z_LOSS_AND_SOFT_CAP)
        ]
    shapes = [(2048, 256, 4096), (1024, 256, 32000), (512, 512, 50288)]
    return [_case(*shape, torch.float32, "cpu", {}) for shape in shapes] + [
        _case(1024, 256, 32000, torch.float32, "cpu", Z_LOSS_AND_SOFT_CAP)
    ]


def _case(n: int, d: int, vocab: int, dtype: torch.dtype, device: str, options: dict[str, Any]) -> Case:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=generator).to(device, dtype).requires_grad_()
    weight = (torch.randn(vocab, d, generator=generator) * 0.02).to(device, dtype).requires_grad_()
    targets = torch.randint(0, vocab, (n,), generator=generator).to(device)
    weights = torch.ones(n, device=device)

    def step(op: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad(op(), [hidden, weight])

        return run

    def check() -> float:
        def run(op: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., tuple[Tensor, Tensor]]:
            return lambda hidden, weight: op(hidden, weight, targets[:300] % min(vocab, 5000), **options)

        one = torch.ones((), device=device)
        return error_against(run(reference), run(linear_cross_entropy), [hidden[:300], weight[:5000]], [one])

    def ours() -> Tensor:
        return linear_cross_entropy(hidden, weight, targets, weights, **options)[0]

    peers = {name: step(op) for name, op in _peers(hidden, weight, targets, weights, options).items()}
    moved = 2.0 * (hidden.nbytes + weight.nbytes)
    name = f"{n} x {d}, vocabulary {vocab}" + (", z-loss, soft cap" if options else "")
    return Case(
        "linear_cross_entropy",
        name,
        dtype_name(dtype),
        step(ours),
        peers,
        check,
        6.0 * n * d * vocab,
        moved,
    )


def _peers(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, options: dict[str, Any]
) -> dict[str, Callable[[], Tensor]]:
    """The peers that can be imported here, each as a function that returns the total loss of the same inputs."""
    z_loss, soft_cap = options.get("z_loss", 0.0), options.get("soft_cap")

    def all_logits() -> Tensor:
        logits = (hidden @ weight.T).float()
        if soft_cap is not None:
            logits = soft_cap * torch.tanh(logits / soft_cap)
        total = F.cross_entropy(logits, targets, reduction="sum")
        return total if not z_loss else total + z_loss * logits.logsumexp(-1).square().sum()

    peers: dict[str, Callable[[], Tensor]] = {"all logits": all_logits}
    if hidden.is_cuda and find_spec("liger_kernel") is not None:
        from liger_kernel.ops.fused_linear_cross_entropy import (  # pyright: ignore[reportMissingImports]
            LigerFusedLinearCrossEntropyFunction as Liger,
        )

        def liger(reduction: str) -> Tensor:
            return Liger.apply(
                hidden, weight, targets, None, None, -100, z_loss, 0.0, reduction, soft_cap, False, torch.float32
            )[0]  # fmt: skip

        peers["Liger-Kernel (sum, no weights)"] = lambda: liger("sum")
        peers["Liger-Kernel (each row, weighted)"] = lambda: (liger("none") * weights).sum()
    return peers
