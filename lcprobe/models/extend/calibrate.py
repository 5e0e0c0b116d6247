"""Calibrate one number per layer by the loss on a little training text, as Delta and A scaling need it.

A coordinate search: layers are visited from the last to the first; each tries the given values with all others fixed
and keeps the best. No gradients; bit-for-bit reproducible.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class CalibrationConfig:
    """The candidates and the text of a calibration."""

    values: tuple[float, ...] = (0.25, 0.5, 0.707, 1.0, 1.414)
    """Values that are tried in every layer; 1 is the model as trained."""
    rounds: int = 1
    """Number of passes over the layers."""
    n: int = 4
    """Number of windows of training text on which the loss is measured."""
    seed: int = 0
    """Seed that selects the windows of training text."""

    def check(self, at: str) -> None:
        """Raises ConfigError for no values, values that are not positive, and counts below 1."""
        require(
            f"{at}.values", list(self.values), len(self.values) > 0 and all(v > 0 for v in self.values), "numbers > 0"
        )
        require(f"{at}.rounds", self.rounds, self.rounds >= 1, ">= 1")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")


@torch.no_grad()
def calibrate(
    model: LanguageModel,
    n_layers: int,
    set_value: Callable[[int, float], None],
    context: ExtensionContext,
    search: CalibrationConfig,
    name: str,
) -> list[float]:
    """The values, one per layer, with the lowest loss found on windows of factor x context_length tokens.

    set_value(layer, value) sets one of `n_layers` layers. name: the extension's, for errors. Raises ConfigError
    without training text.
    """
    if context.text is None:
        raise ConfigError(
            f"pe.extend.{name}", "values to be calibrated", "given values: no training text is available here"
        )
    assert context.factor is not None, "Extension.not_applicable requires a number"
    ids = context.text(search.n, round(context.factor * context.context_length), search.seed)
    ids = ids.to(next(model.parameters()).device)
    weights = torch.ones(ids.shape, device=ids.device)
    values = [1.0] * n_layers
    for layer in range(n_layers):
        set_value(layer, 1.0)
    best = float(model.loss(ids, weights)[0])
    for _ in range(search.rounds):
        for layer in reversed(range(n_layers)):
            for value in search.values:
                if value == values[layer]:
                    continue
                set_value(layer, value)
                loss = float(model.loss(ids, weights)[0])
                if loss < best:
                    best, values[layer] = loss, value
            set_value(layer, values[layer])
    return values


def values_per_layer(values: float | Sequence[float] | None, n_layers: int, key: str) -> list[float] | None:
    """One value per layer; None where they are to be calibrated. Raises ConfigError for a list of another length."""
    if values is None:
        return None
    if isinstance(values, int | float):
        return [float(values)] * n_layers
    require(key, list(values), len(values) == n_layers, f"one number for each of {n_layers} layers")
    return [float(v) for v in values]
