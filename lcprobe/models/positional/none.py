"""NoPE: no positional encoding at all; order reaches the model through the causal mask (Kazemnejad et al. 2023)."""

from dataclasses import dataclass

from lcprobe.models.positional.contract import PositionalEncoding


@dataclass(frozen=True)
class NoPEConfig:
    """Nothing to set."""


class NoPE(PositionalEncoding):
    """Leaves queries, keys and scores as they are."""

    Config = NoPEConfig
    reads_positions = False
