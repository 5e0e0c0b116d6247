"""Where a report is. The records of a study are in its folder, whatever is asked; a report has a folder for itself:

    runs/NAME/report.html                   the first question that was asked of the study without study.name
    runs/NAME/reports/REPORT/report.html    every other: study.name, else its tasks and the beginning of a digest

The same question again goes to the same place, and another never replaces what is there.
"""

from dataclasses import dataclass
from pathlib import Path

from lcprobe.errors import DataError
from lcprobe.studies.evaluation.report_inputs import ReportInputs, load_inputs, report_time
from lcprobe.studies.evaluation.reporting.question import Question, read_question

REPORTS = "reports"
"""The folder with all reports but the first, in the folder with the records."""


@dataclass(frozen=True)
class Place:
    """folder: of the report; title: its name; note: what tells it from the first report, where it is another."""

    folder: Path
    title: str
    note: str = ""


def report_times(home: Path) -> dict[Path, float]:
    """When every report about the records of a folder was written, by the report's folder."""
    folders = [home, *sorted((home / REPORTS).glob("*"))]
    times = {folder: report_time(folder) for folder in folders}
    return {folder: time for folder, time in times.items() if time is not None}


def place_of(home: Path, study: str, named: str | None, asked: Question, record_units: list[str]) -> Place:
    """Where the report about a question belongs. home: the folder with the records; study: its name; named:
    study.name where that is another. record_units: for reports of older versions, which have no question."""
    if named is not None:
        folder = home / REPORTS / named
        if _may_take(folder, asked, record_units):
            return Place(folder, named)
        return _own_place(home, f"{named}-{asked.digest[:6]}", f"{folder} answers another question")
    if _may_take(home, asked, record_units):
        return Place(home, study)
    first = _question(home)
    keys = ", ".join(first.differs_in(asked)) if first is not None else ""
    note = f"{home} has the report of another question{f' (other {keys})' if keys else ''}"
    place = _own_place(home, asked.name, note)
    return Place(place.folder, f"{study}/{place.title}", place.note)


def _own_place(home: Path, name: str, note: str) -> Place:
    return Place(home / REPORTS / name, name, note)


def _may_take(folder: Path, asked: Question, record_units: list[str]) -> bool:
    """Whether a folder has no report yet, or one that answers the same question."""
    if report_time(folder) is None:
        return True
    found = _inputs(folder)
    if found is None:  # a report that cannot be read, or has no report.json, is kept
        return False
    if found.question is None:
        return set(found.record_units) == set(record_units)
    question = read_question(found.question)
    return question is not None and question.digest == asked.digest


def _question(folder: Path) -> Question | None:
    found = _inputs(folder)
    return None if found is None else read_question(found.question)


def _inputs(folder: Path) -> ReportInputs | None:
    try:
        return load_inputs(folder)
    except (DataError, OSError, TypeError, KeyError, ValueError):
        return None
