"""rms_norm by its definition, in the inputs' dtype. Any float dtype, any device; the oracle of the tests."""

from torch import Tensor
from torch.nn import functional as F


def reference(
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    gate: Tensor | None = None,
    n_groups: int = 1,
    zero_centred: bool = False,
    residual: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `add_rms_norm`: y, and the sum that was normed before any gate."""
    total = x if residual is None else x + residual
    u = total if gate is None else total * F.silu(gate)
    grouped = u.unflatten(-1, (n_groups, -1))
    normed = (grouped / (grouped.square().mean(-1, keepdim=True) + eps).sqrt()).flatten(-2)
    return normed * (1 + weight if zero_centred else weight), total
