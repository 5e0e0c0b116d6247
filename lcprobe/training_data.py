"""training_data.json in the folder of a run: how far back its training asked, and how far back its tokens could see.

Training writes it and the report reads it: a contract on the ground floor, as records are.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcprobe.files import read_json, write_json

TRAINING_DATA = "training_data.json"
SHARES = tuple(i / 20 for i in range(21))
"""Shares of the quantiles: 0, 5, ..., 100 %."""


@dataclass(frozen=True)
class TrainingData:
    """Distributions over a run's training batches, each as its quantiles at SHARES, in tokens."""

    needle_distances: tuple[float, ...] = ()
    """Distance from the target needle to the answer, over training questions; empty: none about a needle."""
    visible: tuple[float, ...] = ()
    """Over the tokens of text: length of the piece of a document that the token is in, within its sequence; an
    unbroken sequence is one piece. Empty: no text."""
    visible_before: tuple[float, ...] = ()
    """Over the tokens of text: tokens before it that it can see; empty: no text."""
    text_share: float = 1.0
    """Share of the training tokens that are text; the rest are episodes."""
    distance: str = ""
    """`distance` of the recipes, such as `uniform`, or `uniform, log` where they differ; empty: no episodes."""
    initial_state: str = ""
    """`train.initial_state` by name. Text before the sequence, which recurrent layers see under `preceding`, counts
    as visible; what `passed` states have seen is other text and does not."""

    @property
    def median_visible(self) -> float | None:
        """Half of the tokens of text are in pieces of at most this length; None: no text."""
        return self.visible[SHARES.index(0.5)] if self.visible else None

    @property
    def farthest(self) -> float | None:
        """95 % of the training questions are about a needle at most this far back; None: no such question."""
        return self.needle_distances[SHARES.index(0.95)] if self.needle_distances else None

    @property
    def longest(self) -> float | None:
        """Farthest needle of any training question that was looked at; None: no such question."""
        return self.needle_distances[-1] if self.needle_distances else None


def training_data_from(written: Mapping[str, Any]) -> TrainingData:
    """From its JSON, in which tuples are lists."""
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in written.items()}
    return TrainingData(**values)


def write_training_data(folder: Path, data: TrainingData) -> None:
    """Write training_data.json of a run's folder, atomically."""
    write_json(folder / TRAINING_DATA, asdict(data))


def read_training_data(folder: Path) -> TrainingData | None:
    """What training_data.json of a run's folder has; None where there is none: runs of older versions."""
    path = folder / TRAINING_DATA
    return training_data_from(read_json(path)) if path.is_file() else None
