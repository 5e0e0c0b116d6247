"""How far the writing of a report is: it tells a tracker of every figure and table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.tracking import NoTracker
from lcprobe.words import counted


class ReportProgress(NoTracker):
    """Shows what is written. How much there will be is not known before the statistics are."""

    def __init__(self, display: ProgressDisplay):
        self._display, self._figures, self._tables = display, 0, 0
        display.show("writing the report: statistics", "", None)

    def figure(self, name: str, png: Path) -> None:
        """Count a figure."""
        self._figures += 1
        self._tell()

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count a table."""
        self._tables += 1
        self._tell()

    def _tell(self) -> None:
        done = [counted(self._figures, "figure")] + ([counted(self._tables, "table")] if self._tables else [])
        self._display.show(f"writing the report: {', '.join(done)}", "", None)
