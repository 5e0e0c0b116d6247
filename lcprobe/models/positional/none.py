"""NoPE: no positional encoding at all; order reaches the model through the causal mask (Kazemnejad et al. 2023)."""

from dataclasses import dataclass

from torch import Tensor, nn

from lcprobe.models.where import Where


@dataclass(frozen=True)
class NoPEConfig:
    """Nothing to set."""


class NoPE(nn.Module):
    """Leaves queries and keys as they are."""

    Config = NoPEConfig

    def __init__(self, config: NoPEConfig, head_dim: int):
        super().__init__()

    def on_qk(self, qk: Tensor, where: Where) -> Tensor:
        """qk: (batch, seqlen, n_heads + n_kv_heads, head_dim), unchanged."""
        return qk
