"""What TensorBoard and trackio have of a run, read back from their files: (step, value) by name."""

import json
import sqlite3
from pathlib import Path

from lcprobe.studies.tracking import WandbRun
from lcprobe.studies.tracking.also.tensorboard import folder_of
from lcprobe.studies.tracking.also.trackio import name_of

Read = dict[str, list[tuple[int, float]]]


def tensorboard_rows(run: WandbRun) -> Read:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder_of(run)), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def trackio_rows(run: WandbRun, folder: Path) -> Read:
    with sqlite3.connect(next(folder.glob("*.db"))) as database:
        query = "select step, metrics, run_name from metrics where run_name = ? order by id"
        rows = [(step, json.loads(metrics)) for step, metrics, _ in database.execute(query, [name_of(run)])]
    names = dict.fromkeys(name for _, row in rows for name in row)
    return {name: [(step, row[name]) for step, row in rows if name in row] for name in names}
