"""One number a layer, found by the loss on a little training text: what Delta and A scaling are calibrate with.

Layers are taken one after the other, from the last to the first; each tries the given values while the others stay, and keeps the
best (a coordinate search: no gradient, repeatable to the bit).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class CalibrationConfig:
    """The budget of a calibration."""

    values: tuple[float, ...] = (0.25, 0.5, 0.707, 1.0, 1.414)
    """Tried in every layer; 1 is as trained."""
    rounds: int = 1
    """Passes over the layers."""
    n: int = 4
    """Windows of training text."""
    seed: int = 0
    """Which windows."""

    def check(self, at: str) -> None:
        """Raises ConfigError for empty or impossible values."""
        require(
            f"{at}.values", list(self.values), len(self.values) > 0 and all(v > 0 for v in self.values), "numbers > 0"
        )
        require(f"{at}.rounds", self.rounds, self.rounds >= 1, ">= 1")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")


@torch.no_grad()
def calibrate(
    model: LanguageModel,
    n_layers: int,
    put: Callable[[int, float], None],
    context: ExtensionContext,
    search: CalibrationConfig,
    name: str,
) -> list[float]:
    """Values for `n_layers` layers at which text of factor x context_length is predicted best. put(layer, value) sets one.

    Raises ConfigError where there is no text to calibrate on.
    """
    if context.text is None:
        raise ConfigError(f"pe.extend.{name}", "to be calibrate", "values given: no training text is at hand here")
    assert context.factor is not None, "Extension.not_applicable asks for a number"
    ids = context.text(search.n, round(context.factor * context.context_length), search.seed)
    ids = ids.to(next(model.parameters()).device)
    weights = torch.ones(ids.shape, device=ids.device)
    chosen = [1.0] * n_layers
    for layer in range(n_layers):
        put(layer, 1.0)
    best = float(model.loss(ids, weights)[0])
    for _ in range(search.rounds):
        for layer in reversed(range(n_layers)):
            for value in search.values:
                if value == chosen[layer]:
                    continue
                put(layer, value)
                loss = float(model.loss(ids, weights)[0])
                if loss < best:
                    best, chosen[layer] = loss, value
            put(layer, chosen[layer])
    return chosen


def values_per_layer(values: float | Sequence[float] | None, n_layers: int, key: str) -> list[float] | None:
    """One value a layer, None where they are to be searched. Raises ConfigError for a list of another length."""
    if values is None:
        return None
    if isinstance(values, int | float):
        return [float(values)] * n_layers
    require(key, list(values), len(values) == n_layers, f"one number for each of {n_layers} layers")
    return [float(v) for v in values]
