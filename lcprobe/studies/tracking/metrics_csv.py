"""metrics.csv: the rows of a training run, as a tracker and as they are read again."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcprobe.files import write_atomic
from lcprobe.tracking import Artifact, Tracker

Row = Mapping[str, float | int]
WHOLE = re.compile(r"-?[0-9]{1,18}")


class CsvTracker(Tracker):
    """metrics.csv: one row per call, columns as they appear. Rows past `tokens` are of an interrupted run and are
    dropped, as those are that a row with fewer tokens measures again."""

    def __init__(self, path: Path, tokens: int):
        self._path = path
        self.rows: list[Row] = [row for row in read_metrics(path) if row.get("tokens", 0) <= tokens]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self._rewrite()

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Append a row; a new column, and a training that has gone back, rewrite the file."""
        back = drop_measured_again(self.rows, values)
        self.rows.append(dict(values))
        fresh = [name for name in values if name not in self._columns]
        if fresh or back:
            self._columns += fresh
            self._rewrite()
            return
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([values.get(name, "") for name in self._columns])

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do: the report writes its own CSV files."""

    def figure(self, name: str, png: Path) -> None:
        """Nothing to do: figures are files already."""

    def page(self, name: str, html: Path) -> None:
        """Nothing to do: pages are files already."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Nothing to do: status.json has these."""

    def artifact(self, artifact: Artifact) -> None:
        """Nothing to do: the files are on disk already."""

    def uses(self, artifact: Artifact) -> None:
        """Nothing to do: status.json has the digests."""

    def alert(self, title: str, text: str) -> None:
        """Nothing to do: status.json says why a run has stopped."""

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing to do: rows are written as they come."""

    def _rewrite(self) -> None:
        if not self._columns:
            self._path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self._columns)
        writer.writerows([row.get(name, "") for name in self._columns] for row in self.rows)
        write_atomic(self._path, text.getvalue())


def drop_measured_again(rows: list[Row], new: Row) -> bool:
    """Drop the rows that a new one comes before, since training has gone back to a checkpoint; whether it has."""
    tokens = new.get("tokens")
    if tokens is None or not rows or rows[-1].get("tokens", -1) <= tokens:
        return False
    rows[:] = [row for row in rows if row.get("tokens", -1) < tokens]
    return True


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv, without empty cells; an incomplete last line is left out."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    rows = []
    for line in lines[1:]:
        try:
            rows.append({name: _number(cell) for name, cell in zip(lines[0], line, strict=True) if cell != ""})
        except ValueError:
            continue
    return rows


def _number(cell: str) -> float:
    """A cell as it was written: what is whole stays so in a run that goes on."""
    return int(cell) if WHOLE.fullmatch(cell) else float(cell)


def final_loss(rows: Sequence[Mapping[str, float]]) -> float:
    """Mean loss on answers, or on text where there are no episodes, over the last tenth of a run's training rows.

    Every batch is new, so that it is held-out loss. NaN without rows.
    """
    trained = [row for row in rows if "train/loss" in row]
    last = trained[-max(1, len(trained) // 10) :]
    name = "train/answer_loss" if all("train/answer_loss" in row for row in last) else "train/text_loss"
    values = [row.get(name, float("nan")) for row in last]
    return sum(values) / len(values) if values else float("nan")
