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
from lcprobe.words import and_list

REPORTS = "reports"
"""The folder with all reports but the first, in the folder with the records."""


@dataclass(frozen=True)
class Place:
    """folder: of the report; title: of its page; note: why it is not in the study's own folder, where it is not;
    asks: its question in words, where the study has a first report that asks another."""

    folder: Path
    title: str
    note: str = ""
    asks: str = ""


def report_times(home: Path) -> dict[Path, float]:
    """When every report about the records of a folder was written, by the report's folder."""
    folders = [home, *sorted((home / REPORTS).glob("*"))]
    times = {folder: report_time(folder) for folder in folders}
    return {folder: time for folder, time in times.items() if time is not None}


def place_of(
    home: Path, study: str, named: str | None, asked: Question, record_units: list[str], is_own: bool = False
) -> Place:
    """Where the report about a question belongs. home: the folder with the records; study: its name; named:
    study.name where that is another. For reports of older versions, which have no question: record_units, and
    is_own: whether it is the study's own question, as its config asks it."""
    first = _question(home)
    differs = first.differs_in(asked) if first is not None else []
    asks = "; ".join(part for part in (asked.tasks_text, _other(differs)) if part)
    if named is not None:
        folder = home / REPORTS / named
        if _may_take(folder, asked, record_units):
            return Place(folder, named, asks=asks)
        own = home / REPORTS / f"{named}-{asked.digest[:6]}"
        return Place(own, named, f"{folder} {_kept_for(folder)}: this report is {own}", asks)
    if _may_take(home, asked, record_units, is_own):
        return Place(home, study)
    own = home / REPORTS / asked.name
    keys = f" (other {', '.join(differs)})" if differs else ""
    return Place(own, study, f"{home} {_kept_for(home)}{keys}: this report is {own}", asks)


def _other(keys: list[str]) -> str:
    """`other grids and precision than the first report`."""
    names = list(dict.fromkeys(key.rpartition(".")[2] for key in keys))
    return f"other {and_list(names)} than the first report" if names else ""


def _kept_for(folder: Path) -> str:
    """Why a folder's report is not replaced."""
    found = _inputs(folder)
    if found is None:
        return "has a report that cannot be read, which is kept"
    if read_question(found.question) is None:
        return "has a report of an older version, without its question, and this is not the study's own question"
    return "has the report of another question"


def _may_take(folder: Path, asked: Question, record_units: list[str], is_own: bool = False) -> bool:
    """Whether a folder has no report yet, or one that answers the same question. is_own: the folder is the study's,
    and so is the question: a report that does not say what it asks was then made of it."""
    if report_time(folder) is None:
        return True
    found = _inputs(folder)
    if found is None:  # a report that cannot be read, or has no report.json, is kept
        return False
    question = read_question(found.question)
    if question is None:
        return is_own or set(found.record_units) == set(record_units)
    return question.digest == asked.digest


def _question(folder: Path) -> Question | None:
    found = _inputs(folder)
    return None if found is None else read_question(found.question)


def _inputs(folder: Path) -> ReportInputs | None:
    try:
        return load_inputs(folder)
    except (DataError, OSError, TypeError, KeyError, ValueError):
        return None
