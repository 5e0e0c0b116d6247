"""Selective RoPE: angles are cumulative sums of phases that depend on the tokens
(Movahedi et al. 2025, arXiv 2511.17388).

    phi_t = phi_{t-1} + theta_m (1 + w_m . x_t)          pair m of queries and keys rotated by phi_t

At initialisation w = 0, which is RoPE. Phases are per key head; the query heads of a group share them. Sums are
float64, and only the last one is carried in the state, since keys are cached rotated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcprobe.errors import require
from lcprobe.models.positional.contract import HeadShape, PositionalEncoding
from lcprobe.models.positional.rope import apply_rotary, geometric_frequencies
from lcprobe.models.token_context import TokenContext


@dataclass(frozen=True)
class SelectiveRoPEConfig:
    """Frequencies of Selective RoPE before training."""

    base: float = 10000.0
    """Base of the geometric series of wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless base > 1."""
        require(f"{at}.base", self.base, self.base > 1, "> 1")


class SelectiveRoPE(PositionalEncoding[SelectiveRoPEConfig]):
    """Input-dependent rotation."""

    Config = SelectiveRoPEConfig
    family = "gate"
    reads_positions = False
    term_bytes = 8

    def __init__(self, config: SelectiveRoPEConfig, shape: HeadShape):
        super().__init__(config, shape)
        shape.check_even_head_dim()
        self.phases = nn.Parameter(torch.empty(shape.n_kv_heads * shape.head_dim // 2, shape.d_model))

    @property
    def no_decay(self) -> list[str]:
        """None: the phases are a projection, which decays like any other."""
        return []

    @staticmethod
    def params(config: SelectiveRoPEConfig, shape: HeadShape) -> int:
        """A projection to the pairs of the key heads."""
        return shape.n_kv_heads * shape.head_dim // 2 * shape.d_model

    @staticmethod
    def flops(config: SelectiveRoPEConfig, shape: HeadShape, visible: float, length: int) -> float:
        """The projection to phases."""
        return shape.n_kv_heads * shape.head_dim * shape.d_model

    @staticmethod
    def term_width(config: SelectiveRoPEConfig, shape: HeadShape) -> int:
        """One angle per pair of the key heads."""
        return shape.n_kv_heads * shape.head_dim // 2

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """0, which is RoPE."""
        value.zero_()

    def token_terms(self, x: Tensor, where: TokenContext, last: Tensor | None) -> Tensor | None:
        """The angles of every token: (batch, seqlen, n_kv_heads * pairs) float64."""
        theta = geometric_frequencies(self.config.base, self.shape.head_dim, x.device).repeat(self.shape.n_kv_heads)
        phases = nn.functional.linear(x, self.phases.to(x.dtype)).double()
        angles = (theta * (1 + phases)).cumsum(1)
        return angles if last is None else angles + last[:, None]

    def on_qk(self, q: Tensor, k: Tensor, where: TokenContext, terms: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rotate both by the tokens' own angles."""
        assert terms is not None
        angles = terms.unflatten(-1, (self.shape.n_kv_heads, -1))
        acc_dtype = torch.promote_types(q.dtype, torch.float32)
        cos, sin = angles.cos().to(acc_dtype), angles.sin().to(acc_dtype)
        group = q.shape[2] // k.shape[2]
        rotated_q = apply_rotary(q, cos.repeat_interleave(group, 2), sin.repeat_interleave(group, 2))
        return rotated_q, apply_rotary(k, cos, sin)
