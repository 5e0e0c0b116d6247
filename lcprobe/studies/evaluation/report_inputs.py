"""report.json: what a report was made from, so that its tables and figures can be made again without the models.

Facts about the runs, and the ids of the units of work whose records count: the records folder may also have those of
other grids.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.report.write import REPORT
from lcprobe.errors import DataError
from lcprobe.files import digest_json, read_json, write_json
from lcprobe.probing.store import Store, text_store
from lcprobe.training_data import training_data_from

REPORT_INPUTS = "report.json"


@dataclass(frozen=True)
class ReportInputs:
    """Facts about a study, and the ids of the finished units that its report is about."""

    study: StudyFacts
    record_units: list[str]
    text_units: list[str]
    question: dict[str, Any] | None = None
    """What was asked of which models, see `reporting.question`; None: written by an older version."""
    home: str = "."
    """The folder with records and context, as seen from the report's."""
    names: dict[str, str] = field(default_factory=dict)
    """Names that the report gives to models, see `analysis.display_names`; facts and records have their own."""

    def records(self, folder: Path) -> pa.Table:
        """One row per query, of SCHEMA. folder: of the report. Raises DataError where a file is missing or
        damaged."""
        return Store(folder / self.home / "records").read(self.record_units)

    def context(self, folder: Path) -> pa.Table | None:
        """One row per measurement on plain text, of CONTEXT_SCHEMA; None where none was made. Raises DataError as
        `records`."""
        return text_store(folder / self.home).read(self.text_units) if self.text_units else None


def save_inputs(folder: Path, inputs: ReportInputs) -> None:
    """Write report.json of a report's folder."""
    write_json(folder / REPORT_INPUTS, asdict(inputs))


def is_report_of(folder: Path, inputs: ReportInputs) -> bool:
    """Whether report.json of a folder has these inputs."""
    path = folder / REPORT_INPUTS
    try:
        return digest_json(read_json(path)) == digest_json(asdict(inputs))
    except (OSError, ValueError):
        return False


def report_time(folder: Path) -> float | None:
    """When the report of a folder was written, by the folder's file system; None: not yet."""
    path = folder / REPORT
    return path.stat().st_mtime if path.is_file() else None


def load_inputs(folder: Path) -> ReportInputs:
    """Read report.json of a report's folder. Raises DataError where there is none."""
    path = folder / REPORT_INPUTS
    if not path.is_file():
        raise DataError(f"{folder}: no {REPORT_INPUTS}; allowed: a folder that evaluate.py has written a report to")
    written = read_json(path)
    facts = written["study"]
    runs = [_run_facts(run) for run in facts["runs"]]
    tasks = [TaskFacts(**{**task, "controls": tuple(task.get("controls", ()))}) for task in facts["tasks"]]
    study = StudyFacts(**{**facts, "runs": runs, "tasks": tasks})
    return ReportInputs(**{**written, "study": study})


def _run_facts(written: dict[str, Any]) -> RunFacts:
    """RunFacts from its JSON, in which tuples are lists and dataclasses are mappings."""
    data: dict[str, Any] | None = written.get("training_data")
    if data is None:
        return RunFacts(**written)
    return RunFacts(**{**written, "training_data": training_data_from(data)})
