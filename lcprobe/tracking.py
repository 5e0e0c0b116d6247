"""What the rooms below `studies` know about experiment tracking: three methods. W&B and CSV stand behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Receives results. Never raises, never blocks on a network, never is the only copy."""

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Scalars of one moment; every row carries its own x-axis (`tokens`, `probe/length`)."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with equal keys."""

    def figure(self, name: str, png: Path) -> None:
        """A finished picture."""


class NoTracker:
    """Tracks nothing: the default of every function that takes a Tracker."""

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Discard."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Discard."""

    def figure(self, name: str, png: Path) -> None:
        """Discard."""
