"""Experiment tracking as the rooms below `studies` see it: one contract. Its implementations are in
`studies/tracking`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ArtifactKind = Literal["dataset", "checkpoint", "records", "report"]


@dataclass(frozen=True)
class Artifact:
    """Something under one name, of which a tracker keeps versions by content. digest: of its content, where it is
    known; files: by their names in it, none where they are too large to be read again; facts: what else is known,
    such as its place."""

    name: str
    kind: ArtifactKind
    digest: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


class Tracker(ABC):
    """Receives results. Its methods never raise and never wait for a network; it never has the only copy. (Before the
    first one of a process is made, a server that W&B has credentials for is asked once, for at most 5 seconds:
    `studies/tracking/modes`.)"""

    @abstractmethod
    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Scalars at one point of a run; every row carries its own x-axis (`tokens`, `eval/length`). A row with fewer
        tokens than the one before is of a training that has gone back to a checkpoint: rows from there on are
        measured again."""

    @abstractmethod
    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with equal keys."""

    @abstractmethod
    def figure(self, name: str, png: Path) -> None:
        """A finished picture."""

    @abstractmethod
    def page(self, name: str, html: Path) -> None:
        """A finished HTML page that needs no other file."""

    @abstractmethod
    def summary(self, values: Mapping[str, Any]) -> None:
        """Values of the run as a whole."""

    @abstractmethod
    def artifact(self, artifact: Artifact) -> None:
        """What the run has made. The same content again is the same version."""

    @abstractmethod
    def uses(self, artifact: Artifact) -> None:
        """What the run is made from."""

    @abstractmethod
    def alert(self, title: str, text: str) -> None:
        """Something that a person should know of at once."""

    @abstractmethod
    def finish(self, error: BaseException | None = None) -> None:
        """The run is over: nothing follows. error: what ended it before it was done."""


class NoTracker(Tracker):
    """Tracks nothing: the default of every function that takes a Tracker."""

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Do nothing."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def figure(self, name: str, png: Path) -> None:
        """Do nothing."""

    def page(self, name: str, html: Path) -> None:
        """Do nothing."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def artifact(self, artifact: Artifact) -> None:
        """Do nothing."""

    def uses(self, artifact: Artifact) -> None:
        """Do nothing."""

    def alert(self, title: str, text: str) -> None:
        """Do nothing."""

    def finish(self, error: BaseException | None = None) -> None:
        """Do nothing."""
