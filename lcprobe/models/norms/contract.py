"""The contract of norms, the classes behind the names in NORMS: a norm over the width, alone or after adding an
update to the residual stream."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from lcprobe.models.parameters import Parametrised


@dataclass(frozen=True)
class NormConfig:
    """Base of the settings of a norm; epsilon is `model.norm_eps`."""


ConfigT = TypeVar("ConfigT", bound=NormConfig)


class Norm(Parametrised, ABC, Generic[ConfigT]):
    """A norm over the last dimension, computed in float32 or wider."""

    Config: ClassVar[type[NormConfig]]

    @abstractmethod
    def __init__(self, config: ConfigT, d_model: int, eps: float):
        """config: an instance of `Config`; eps: added to the mean square or the variance."""
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x: (..., d_model) -> the same shape and dtype."""

    @staticmethod
    @abstractmethod
    def params(config: ConfigT, d_model: int) -> int:
        """Number of parameters."""

    def added(self, update: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """The norm of residual + update in update's dtype, and the sum in residual's dtype. residual None: 0, and the
        sum is `update`."""
        if residual is None:
            return self(update), update
        acc_dtype = torch.promote_types(update.dtype, torch.float32)
        total = residual.to(acc_dtype) + update
        return self(total).to(update.dtype), total.to(residual.dtype)
