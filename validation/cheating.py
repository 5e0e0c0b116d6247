"""The leakage check on every task: scores of no-retrieval policies, against the stated chance."""

from typing import Any

from lcprobe.analysis.leakage import leakage_summary
from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.schema import build
from lcprobe.studies.evaluation.leakage import pivot, run_policies
from validation.variants import materials_of, variants

TITLE = "no-retrieval policies: + above its own 95 % range, ! exceeds chance (Holm over the table), * the task"
OPTIONS = ("n", "strata", "lengths", "tasks")
LEAKAGE_LENGTHS = "512,4096"


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per task, format and length, one column per policy. options: n (400) samples of a task without a
    depth; of others as many answers, over their strata (5); lengths, tasks."""
    n, strata = int(options.get("n", 400)), int(options.get("strata", 5))
    lengths = [int(x) for x in options.get("lengths", LEAKAGE_LENGTHS).split(",")]
    every = variants()
    names = options["tasks"].split(",") if "tasks" in options else list(every)
    tasks = TaskSet(build(ProbeConfig, {"tasks": {name: every[name] for name in names}}, "probe"), materials_of())
    units, notes = [], []
    for name in names:
        grid = {"tasks": [name], "lengths": [x / lengths[0] for x in lengths], "depths": strata, "n": -(-n // strata)}
        try:
            plan = tasks.plan([build(Grid, grid, "grid")], lengths[0])
        except EpisodeError as error:
            notes.append(f"{name}: {error}")
            continue
        units += plan.units
        notes += plan.notes
    table, more = run_policies(tasks, units, n)
    for note in [*notes, *more]:
        print(f"note: {note}")
    print(leakage_summary(table))
    rows = pivot(table)
    summary = dict.fromkeys(rows[0]) | {"task": leakage_summary(table)}
    return [*rows, summary]
