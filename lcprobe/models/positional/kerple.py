"""KERPLE: biases from conditionally positive definite kernels (Chi et al. 2022, arXiv 2205.09921, eq. 5 and 6).

    log      T[h, d] = -r1_h log(1 + r2_h d)          r1, r2 > 0
    power    T[h, d] = -r1_h d^r2_h                   r1 > 0, 0 < r2 <= 2

exp and 2 sigmoid keep parameters in their range; the release clamps them to at least 0.01 after each step. Initial
values are the release's: r1 and r2 uniform in (0, 2) and (0, 1) for the log kernel, in (0, 1) and (0, 2) for the
power kernel.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lcprobe.models.positional.contract import HeadShape, PositionalEncoding

MIN_RATE = 0.01
"""Smallest initial r1 and r2."""


@dataclass(frozen=True)
class KERPLEConfig:
    """The kernel of KERPLE."""

    kernel: Literal["log", "power"] = "log"
    """log: a penalty that grows with the logarithm of distance; power: with a learned power of it."""


class KERPLE(PositionalEncoding[KERPLEConfig]):
    """Kernelised relative position bias, two parameters per head."""

    Config = KERPLEConfig
    family = "bias"

    def __init__(self, config: KERPLEConfig, shape: HeadShape):
        super().__init__(config, shape)
        self.raw1 = nn.Parameter(torch.empty(shape.n_heads))
        self.raw2 = nn.Parameter(torch.empty(shape.n_heads))

    @staticmethod
    def params(config: KERPLEConfig, shape: HeadShape) -> int:
        """Two per head."""
        return 2 * shape.n_heads

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """Rates uniform in the release's ranges, at least 0.01."""
        unit = value.uniform_(0, 1, generator=generator)
        if (name == "raw1") == (self.config.kernel == "log"):
            unit.mul_(2)
        unit.clamp_min_(MIN_RATE)
        if name == "raw2" and self.config.kernel == "power":
            unit.copy_(torch.logit(unit / 2, eps=1e-6))
        else:
            unit.log_()

    def rates(self) -> tuple[Tensor, Tensor]:
        """r1 and r2: (n_heads,) each, float32 or wider."""
        acc_dtype = torch.promote_types(self.raw1.dtype, torch.float32)
        raw1, raw2 = self.raw1.to(acc_dtype), self.raw2.to(acc_dtype)
        return raw1.exp(), raw2.exp() if self.config.kernel == "log" else 2 * raw2.sigmoid()

    def bias(self, distance: Tensor) -> Tensor:
        """-r1 log(1 + r2 d), or -r1 d^r2."""
        r1, r2 = (r.view(-1, *[1] * distance.dim()) for r in self.rates())
        d = distance.to(r1.dtype)
        return -r1 * ((r2 * d).log1p() if self.config.kernel == "log" else d**r2)
