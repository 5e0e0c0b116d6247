"""Several trackers as one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcprobe.tracking import Artifact, Tracker


class Trackers(Tracker):
    """Several trackers as one: every call goes to each of them, in order."""

    def __init__(self, trackers: Sequence[Tracker]):
        self._all = list(trackers)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.metrics(values)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.table(name, rows)

    def figure(self, name: str, png: Path) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.figure(name, png)

    def page(self, name: str, html: Path) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.page(name, html)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.summary(values)

    def artifact(self, artifact: Artifact) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.artifact(artifact)

    def uses(self, artifact: Artifact) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.uses(artifact)

    def alert(self, title: str, text: str) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.alert(title, text)

    def finish(self, error: BaseException | None = None) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.finish(error)
