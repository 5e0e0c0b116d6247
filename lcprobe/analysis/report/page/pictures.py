"""The pictures of a report: of every main task those that answer the question, each beside the findings about it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import MAIN_TASKS, first_format, ranked_tasks
from lcprobe.analysis.report.blocks import InlinedFigure
from lcprobe.analysis.report.training_length import TRAINING_LENGTH
from lcprobe.analysis.report.wording import (
    ACQUIRED,
    DISTANCE,
    EXTENSIONS,
    FORMATS,
    LENGTH,
    MODELS,
    PLAIN_TEXT,
    POSITION,
    Sentence,
)

EXHIBITS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "place": (("heatmap", "depth"), (POSITION,)),
    "length": (("length", "multiple", "effective_length"), (MODELS, LENGTH, TRAINING_LENGTH, EXTENSIONS)),
    "distance": (("distance",), (DISTANCE, ACQUIRED)),
    "formats": (("formats",), (FORMATS,)),
}
"""Charts that are shown together, and the topics of the findings beside them, in the order of a task's pictures."""
TITLES = {
    "place": "Length and depth of the needle",
    "length": "Exact match against length",
    "distance": "Exact match against distance",
    "formats": "Formats",
}
CHAPTERS = {
    MODELS: "models-compared",
    LENGTH: "length",
    TRAINING_LENGTH: "training-length",
    EXTENSIONS: "extensions",
    POSITION: "place",
    DISTANCE: "distance",
    ACQUIRED: "tasks",
    FORMATS: "formats",
    PLAIN_TEXT: "context",
}
"""Where a finding without a picture has its numbers."""


@dataclass(frozen=True)
class Exhibit:
    """Figures about one thing, with the findings that speak of it; left_out: those that the page has no room for."""

    id: str
    title: str
    figures: Sequence[InlinedFigure]
    findings: Sequence[Sentence]
    left_out: str = ""

    @property
    def open(self) -> list[InlinedFigure]:
        """Figures that are open at first."""
        return [f for f in self.figures if not f.picture.folded]

    @property
    def folded(self) -> list[InlinedFigure]:
        """The others."""
        return [f for f in self.figures if f.picture.folded]

    @property
    def wide(self) -> bool:
        """Whether its figures need the whole width, so that findings stand above them."""
        return any(f.picture.chart in ("heatmap", "formats") for f in self.open)


@dataclass(frozen=True)
class TaskPictures:
    """The exhibits of one task, in its first format."""

    id: str
    task: str
    format: str
    exhibits: Sequence[Exhibit]


def pictures(results: Results, figures: Sequence[InlinedFigure], found: Sequence[Sentence]) -> list[TaskPictures]:
    """Exhibits of the main tasks. found: `answer.findings`, and what was seen and is none."""
    shown = []
    for task in ranked_tasks(results)[:MAIN_TASKS]:
        format, place = str(first_format(results, task)), f"pictures-{slug(task)}"
        own = [f for f in figures if f.picture.task == task and f.picture.format in ("", format)]
        plan = results.data.planned[task, first_format(results, task), "none"]
        if all(len(depths) == 1 for depths in plan.values()):  # the curve by length has all of it
            own = [f for f in own if f.picture.chart != "heatmap"]
        exhibits = []
        for name, (charts, topics) in EXHIBITS.items():
            drawn = [f for chart in charts for f in own if f.picture.chart == chart]
            if drawn:
                about = [s for s in found if s.task == task and s.topic in topics]
                exhibits.append(Exhibit(f"{place}-{name}", TITLES[name], drawn, about))
        if exhibits:
            shown.append(TaskPictures(place, task, format, exhibits))
    return shown


def link_of(finding: Sentence, shown: Sequence[TaskPictures], chapters: Sequence[str]) -> str:
    """The id of the picture or of the chapter that a finding speaks of; empty where the page has neither."""
    for pictures_ in shown:
        for exhibit in pictures_.exhibits:
            if finding in exhibit.findings:
                return exhibit.id
    chapter = CHAPTERS.get(finding.topic, "")
    return chapter if chapter in chapters else ""


def slug(text: str) -> str:
    """A part of an id from data: letters, digits and -."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "x"
