"""Whether weights are finite, asked before they are saved."""

import torch
from torch import distributed, nn

from lcprobe.training.strategies.division import Division, own


@torch.no_grad()
def weights_are_finite(model: nn.Module, division: Division) -> bool:
    """Whether all weights are finite. Waits for the device; where processes have parts of them, all call it."""
    norms = torch._foreach_norm([own(parameter) for parameter in model.parameters()])  # type: ignore[attr-defined]
    finite = torch.isfinite(torch.stack(norms)).all().to(torch.float32)
    if division.is_divided:
        distributed.all_reduce(finite, distributed.ReduceOp.MIN)
    return bool(finite)
