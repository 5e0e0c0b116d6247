"""work/probe_units.json: the models of a probe and their units of records, for `lcprobe status`, which plans
nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcprobe.files import write_json
from lcprobe.studies.evaluation.jobs.job import Job
from lcprobe.studies.status import WORK


def write_probe_units(out: Path, jobs: Sequence[Job]) -> None:
    """Write the units of jobs: by model, the tokens of each unit, the groups that are claimed, the unit of plain
    text, those that cannot be made, and the file of notes on the model."""
    write_json(out / WORK / "probe_units.json", {"models": [_facts(out, job) for job in jobs]})


def _facts(out: Path, job: Job) -> dict[str, Any]:
    work = job.work
    tokens = [unit.length * sum(n for _, n in unit.cells) for unit in work.plan.units]
    unmade = [name for name, unit in zip(work.ids, work.plan.units, strict=True) if unit in work.tasks.not_made]
    return {
        "name": job.variant.name,
        "units": dict(zip(work.ids, tokens, strict=True)),
        "groups": [group.name for group in work.groups],
        "text": job.text_unit,
        "unmade": unmade,
        "notes": job.notes.relative_to(out).as_posix(),
    }
