"""NoPE: no positional encoding; order enters through the causal mask alone
(Kazemnejad et al. 2023, arXiv 2305.19466)."""

from dataclasses import dataclass

from lcprobe.models.positional.contract import PositionalEncoding


@dataclass(frozen=True)
class NoPEConfig:
    """NoPE has no settings."""


class NoPE(PositionalEncoding[NoPEConfig]):
    """Leaves queries, keys and scores unchanged."""

    Config = NoPEConfig
    reads_positions = False
    same_for_heads = True
