"""The tables of arXiv 2407.08112 (J. Huang, COLING 2025, pages 29 to 39), cell by cell.

    data/means.csv      Table 1: mean of 13 RULER tasks by length
    data/depths.csv     Tables 2 and 3: needle by depth, at the training length and at twice that
    data/formats.csv    Table 4: needle by format, length and depth, three models
    data/tasks.csv      Tables 7 to 19: one RULER task each
    data/models.csv     the eight checkpoints; the training length that the tables imply, and the prompt wrappers
    data/ruler.csv      references, greedy tokens and rule of each task (NVIDIA/RULER)
    data/averaged.csv   formats that a cell of Tables 2 and 3 is the mean of
    data/ours.csv       what differs between RULER's tasks and ours of the same name, and whether it is the same task
    data/claims.csv     what the study claims, and what its numbers support
    data/marks.csv      cells that are not what they seem, each with its reason

A cell is a percentage of 250 samples (one seed, greedy, no interval was published); with several references per
sample, of that many references. Per-sample outputs were never published.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product

SOURCE, SAMPLES = "arXiv 2407.08112", 250
NEEDLE, MEAN = "needle", "mean of 13 tasks"
"""Names, in place of a RULER task, of what Tables 2 to 4 and Table 1 are about."""
Row = dict[str, str]


@dataclass(frozen=True, order=True)
class PublishedFormat:
    """Haystack, key and value in the study's words: repeat or essay, word, number or uuid."""

    haystack: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.haystack}/{self.key}/{self.value}"


@dataclass(frozen=True)
class Mark:
    """Why a cell is not what it seems. kind: a few words; reason: one sentence; samples_known: whether the number of
    its samples is."""

    kind: str
    reason: str
    samples_known: bool = True


@dataclass(frozen=True)
class PublishedCell:
    """One number of the study.

    task: a RULER task, NEEDLE or MEAN. formats: those that the number is a mean of; empty for RULER tasks, which have
    their own. depth: in per cent, None for any. percent: as printed; None where it is unreadable. references: per
    sample.
    """

    table: str
    model: str
    task: str
    formats: tuple[PublishedFormat, ...]
    length: int
    depth: int | None
    percent: float | None
    references: int
    marks: tuple[Mark, ...]

    @property
    def share(self) -> float | None:
        """The number as a share; None where it is unreadable."""
        return None if self.percent is None else self.percent / 100

    @property
    def parts(self) -> int:
        """Sets of 250 samples in it: 13 tasks, or the formats of a mean."""
        return len(ruler_tasks()) if self.task == MEAN else max(1, len(self.formats))

    @property
    def derived(self) -> bool:
        """Whether it is a mean of other cells: Table 1 of Tables 7 to 19, and the matched models' depths 0, 50 and
        100 in Tables 2 and 3 of Table 4."""
        if self.task == MEAN:
            return True
        return self.table in ("2", "3") and (self.model, self.length, self.depth) in _places_of_table_4()

    @property
    def samples(self) -> int | None:
        """Samples in it; None where that is unknown."""
        return SAMPLES * self.parts if all(mark.samples_known for mark in self.marks) else None


@dataclass(frozen=True)
class PublishedModel:
    """One of the eight checkpoints. context_length: the training length that the tables imply.

    wrapper: around the prompt in the study; own_wrapper: as the model was trained: none, chat, instruction or rwkv.
    """

    name: str
    checkpoint: str
    other_names: tuple[str, ...]
    context_length: int
    context_length_from: str
    wrapper: str
    own_wrapper: str


@dataclass(frozen=True)
class RulerTask:
    """references per sample, greedy tokens after the prompt, and whether `all` references count or any (`part`)."""

    references: int
    new_tokens: int
    rule: str


@lru_cache(maxsize=1)
def models() -> dict[str, PublishedModel]:
    """The eight checkpoints by the study's abbreviations."""
    return {
        row["model"]: PublishedModel(
            row["model"],
            row["checkpoint"],
            tuple(row["other names"].split()),
            int(row["context_length"]),
            row["context_length from"],
            row["wrapper in the study"],
            row["wrapper of the model"],
        )
        for row in _rows("models")
    }


@lru_cache(maxsize=1)
def ruler_tasks() -> dict[str, RulerTask]:
    """RULER's 13 tasks in the order of the tables."""
    return {
        row["task"]: RulerTask(int(row["answers"]), int(row["new_tokens"]), row["rule"]) for row in _rows("ruler")
    }


@lru_cache(maxsize=1)
def cells() -> tuple[PublishedCell, ...]:
    """Every cell of Tables 1 to 4 and 7 to 19, in the order of the tables."""
    found = []
    for row in _rows("means"):
        found += [_cell(row, MEAN, (), int(length), None, row[length]) for length in row if length.isdigit()]
    averaged = _averaged()
    for row in _rows("depths"):
        length = models()[row["model"]].context_length * (2 if row["table"] == "3" else 1)
        for depth in (int(name) for name in row if name.isdigit()):
            formats = averaged[row["model"], depth]
            found.append(_cell(row, NEEDLE, formats, length, depth, row[str(depth)]))
    for row in _rows("formats"):
        format = PublishedFormat(row["haystack"], row["key"], row["value"])
        for depth in (name for name in row if name.isdigit()):
            found.append(_cell(row, NEEDLE, (format,), int(row["length"]), int(depth), row[depth]))
    for row in _rows("tasks"):
        found += [_cell(row, row["task"], (), int(length), None, row[length]) for length in row if length.isdigit()]
    return tuple(found)


@lru_cache(maxsize=1)
def ruler_cells() -> dict[tuple[str, str, int], PublishedCell]:
    """The cells of Tables 7 to 19 by model, task and length."""
    return {(cell.model, cell.task, cell.length): cell for cell in cells() if cell.task in ruler_tasks()}


def published_means() -> dict[tuple[str, str], tuple[float, str]]:
    """The last column of Tables 1 to 3, by table and model: the mean of the row as printed, in per cent, and a note
    where it is not."""
    rows = (*_rows("means"), *_rows("depths"))
    return {(row["table"], row["model"]): (float(row["mean"]), row.get("mean note", "")) for row in rows}


def claims() -> dict[str, str]:
    """What the study claims, and what its numbers support when they are read again."""
    return {row["claim"]: row["what the published numbers support"] for row in _rows("claims")}


def differences_of_tasks() -> dict[str, str]:
    """What differs between a task of the study and ours of the same name."""
    return {row["task"]: row["what differs from RULER"] for row in _rows("ours")}


@lru_cache(maxsize=1)
def same_tasks() -> frozenset[str]:
    """Tasks of the study that ours of the same name are comparable with: asked the same way, with samples of their
    own. The others share a name and an idea."""
    return frozenset(row["task"] for row in _rows("ours") if row["same task"] == "yes")


def _cell(
    row: Row, task: str, formats: tuple[PublishedFormat, ...], length: int, depth: int | None, printed: str
) -> PublishedCell:
    references = ruler_tasks()[task].references if task in ruler_tasks() else 1
    facts = {
        "table": row["table"],
        "model": row["model"],
        "task": task,
        "format": str(formats[0]) if len(formats) == 1 else "",
        "length": str(length),
        "depth": "" if depth is None else str(depth),
    }
    percent = float(printed) if printed else None
    return PublishedCell(row["table"], row["model"], task, formats, length, depth, percent, references, _marks(facts))


def _marks(facts: Row) -> tuple[Mark, ...]:
    """Marks whose every filled-in column lists the cell's value."""
    return tuple(
        Mark(row["kind"], row["reason"], row["samples"] != "unknown")
        for row in _rows("marks")
        if all(not row[name] or value in row[name].split() for name, value in facts.items())
    )


@lru_cache(maxsize=1)
def _places_of_table_4() -> frozenset[tuple[str, int, int]]:
    return frozenset(
        (row["model"], int(row["length"]), int(depth)) for row in _rows("formats") for depth in row if depth.isdigit()
    )


def _averaged() -> dict[tuple[str, int], tuple[PublishedFormat, ...]]:
    return {
        (model, int(depth)): tuple(PublishedFormat(*format.split("/")) for format in row["formats"].split())
        for row in _rows("averaged")
        for model, depth in product(row["models"].split(), row["depths"].split())
    }


@lru_cache(maxsize=16)
def _rows(name: str) -> tuple[Row, ...]:
    text = files("lcprobe.analysis.published").joinpath("data", f"{name}.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))
