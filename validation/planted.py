"""Planted models: does the report say of oracles with a known defect what was planted, and of sound ones nothing?

Every oracle answers real episodes through the runner and the store; its records are analysed as a study of its own, and the
recovered size is read from the tables that the report wrote: for seed 0 from its files, for the others from its rows. A sound
oracle raises an alarm wherever tests, gates or sentences of the report say that something is wrong with it.

Seeds are different data: seed s is asked samples s * n .. s * n + n - 1 (column `index` of its records) over text s modulo
TEXTS, so that an oracle without any luck of its own, as a window is, meets other haystacks, needles and places in every seed.
Only the oracles of one seed share episodes, as the models of a study do.
"""

import csv
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import all_tables
from lcprobe.analysis.report.write import write_report
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.data.sources.sotu import speeches
from lcprobe.files import digest_json
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import Plan, TaskSet
from lcprobe.probing.policies.planted import (
    HitRate,
    Planted,
    blind_middle,
    blind_to_uuids,
    forgetting,
    noise,
    perfect,
    sees_last,
)
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.store import Store
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer

TITLE = "planted models"
OPTIONS = ("n", "sound_n", "seeds")
CONTEXT = 256
TASKS = {
    "single": {"type": "niah", "n_keys": 1, "word_pairs": True},
    "multikey": {"type": "niah", "n_keys": 4, "word_pairs": True},
}
OF_THE_GRID = ("No zero-distance control", "Few samples")
GRIDS = ("single", "multikey", "formats")
SEEDS = 20
"""Of each defect. One interval in twenty misses by design."""
TEXTS = 10
"""Haystacks, each of other speeches: a seed has one of them."""
SOUND: dict[str, HitRate] = {"perfect": perfect, "flat noise 0.9": noise(0.9), "flat noise 0.6": noise(0.6)}
DEPTHS = [0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
LENGTHS = [0.5, 1, 2, 4, 8]


@dataclass(frozen=True)
class Plant:
    """A defect. size: what the report should say of it as `measure`, read from rows of its table that `where(row)` picks."""

    name: str
    hit_rate: HitRate
    task: str
    measure: str
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
    found = [Plant(f"sees the last {w} tokens", sees_last(w), task, "effective reach, tokens", "reach", "reach", w) for w, task in
             ((150, "single"), (600, "single"), (300, "multikey"))]  # fmt: skip
    found += [Plant(f"forgets half every {h} tokens", forgetting(h), task, "half-life, tokens", "reach", "half_life", h)
              for h, task in ((100, "single"), (400, "single"), (200, "multikey"))]  # fmt: skip
    for p, left in ((0.9, 0.0), (0.9, 0.6)):
        words = f"finds {left:g}, else {p:g},"
        found.append(Plant(f"{words} in the middle", blind_middle(p, left), "single", "accuracy at the ends - in the middle",
                           "contrasts", "difference", p - left, _far_middle))  # fmt: skip
        found.append(Plant(f"{words} of UUIDs", blind_to_uuids(p, left), "formats", "accuracy on numbers - on UUIDs",
                           "contrasts", "difference", p - left, _numbers_against_uuids))  # fmt: skip
    return found


def _far_middle(row: dict[str, Any]) -> bool:
    return row["kind"] == "lost in the middle" and int(row["length"]) == 4 * CONTEXT


def _numbers_against_uuids(row: dict[str, Any]) -> bool:
    return row["kind"] == "format" and row["what"].endswith("numbers − corpus/words/uuids")


def task_set(stream: TokenStream | None = None, part: int = 0) -> TaskSet:
    """The tasks over a twelfth of the speeches, or over a given stream."""
    tokenizer = load_tokenizer()
    if stream is None:
        text = "\n\n".join(text for i, text in enumerate(speeches()) if i % 12 == part)
        stream = TokenStream.from_text("corpus", text, tokenizer)
    return TaskSet(build(ProbeConfig, {"tasks": TASKS}, "probe"), Materials(tokenizer, stream))


def grid_of(tasks: TaskSet, task: str, n: int) -> Plan:
    """The grid of a plant: lengths and depths of a task, or two value formats at two lengths."""
    given: dict[str, Any] = {"tasks": [task], "lengths": LENGTHS, "depths": DEPTHS, "n": n}
    if task == "formats":
        given |= {"tasks": ["single"], "lengths": [1, 2], "value": ["numbers", "uuids"]}
    return tasks.plan([build(Grid, given, "grid")], CONTEXT)


@dataclass(frozen=True)
class Asked:
    """What a report says of one seed of an oracle. data: digest of the episodes that it was asked."""

    data: str
    said: tuple[float, float, float] = (math.nan, 0.0, math.inf)
    """Of a defect: its size with the bounds."""
    alarms: tuple[str, ...] = ()
    """Of a sound oracle."""


def of_seed(plan: Plan, n: int, seed: int) -> Plan:
    """The same cells in n samples that no other seed has."""
    return replace(plan, units=[replace(unit, first=seed * n) for unit in plan.units])


def records_of(tasks: TaskSet, plan: Plan, hit_rate: HitRate, seed: int, store: Store) -> pa.Table:
    """Every question of a plan answered by an oracle, through the runner."""
    scorer = Planted(hit_rate, tasks.materials.tokenizer, seed)
    subject = ProbedCheckpoint("oracle", f"{seed:016x}", 1, 1)
    ids = run_plan(plan, tasks, scorer, subject, store, batch_tokens=1 << 20, scoring="teacher_forced")
    return store.read(ids)


def study_of(tasks: TaskSet, plan: Plan) -> StudyFacts:
    """A study of one oracle."""
    run = RunFacts("oracle", "oracle", "none", 0, CONTEXT, 1, 1, 1, None, None, "0" * 32, 0, "0" * 16, "swept")
    facts = []
    for name in dict.fromkeys(unit.task for unit in plan.units):
        unit = next(u for u in plan.units if u.task == name)
        query = tasks.by_name[name].episode(Factors(unit.formats, unit.length, 0.5, 0)).queries[0]
        facts.append(TaskFacts(name, name, query.chance, tasks.by_name[name].needs_lookup, ""))
    cells = [row for unit in plan.units for row in unit.rows()]
    return StudyFacts("planted", [run], facts, [], 0.0, [], {}, "", cells)


def recovered(tasks: TaskSet, plant: Plant, n: int, seed: int, folder: Path) -> Asked:
    """What the report says of one seed of a defect; its files are read for seed 0."""
    plan = of_seed(grid_of(tasks, plant.task, n), n, seed)
    study, records = study_of(tasks, plan), records_of(tasks, plan, plant.hit_rate, seed, Store(folder / "records"))
    if seed:
        return Asked(data_of(records), said(plant, all_tables(analyse(study, records))[plant.table]))
    write_report(study, records, folder)
    with open(folder / "tables" / f"{plant.table}.csv", newline="", encoding="utf-8") as file:
        return Asked(data_of(records), said(plant, list(csv.DictReader(file))))


def heard(tasks: TaskSet, plan: Plan, hit_rate: HitRate, seed: int, folder: Path) -> Asked:
    """Alarms about one seed of an oracle: runner, store, analysis, summary. plan: in the seed's own samples."""
    records = records_of(tasks, plan, hit_rate, seed, Store(folder))
    return Asked(data_of(records), alarms=tuple(alarms(analyse(study_of(tasks, plan), records))))


def data_of(records: pa.Table) -> str:
    """Digest of which samples were asked, and of their episodes."""
    rows = zip(records["index"].to_pylist(), records["episode"].to_pylist(), strict=True)
    return digest_json(sorted(set(rows)))


def said(plant: Plant, rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The size and its interval in rows of the report's table: infinite where a field is empty."""
    row = next(row for row in rows if plant.where(row))
    value, low, high = (
        math.inf if row[name] in ("", None) else float(row[name]) for name in (plant.column, *plant.bounds)
    )
    return value, 0.0 if math.isinf(low) else low, high


def alarms(results: Results) -> list[str]:
    """What a report claims to be wrong with a model: resolved differences of length, place and format, a reach, a half-life, an
    effective length that ends inside the grid, a task or a look-up that is not acquired, and every warning of its summary but
    those of the grid: that it has no controls and few samples.
    """
    found = [f"{c.kind} {c.length}: {c.difference:+.2f}" for c in results.contrasts if c.resolved]
    found += [f"reach {r}" for r in results.reaches if r.refused is None and r.tokens is not None]
    found += [f"half-life {h}" for h in results.half_lives if h.tokens is not None]
    found += [f"effective length {e}" for e in results.extrapolations if e.effective is not None and not e.at_least]
    found += [f"acquired: {g.acquired}" for g in results.gates if g.acquired == "not acquired"]
    found += [f"look-up: {g.lookup}" for g in results.gates if g.lookup == "not acquired"]
    warned = [s.text for s in summary(results) if s.warning and not s.text.startswith(OF_THE_GRID)]
    return found + [f"warning: {text}" for text in warned]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row a defect, then how many seeds of sound oracles raise no alarm. options: n (100) samples a cell, sound_n (30) those
    of sound oracles, seeds (200) of each of them.
    """
    n, sound_n, seeds = (
        int(options.get(name, default)) for name, default in (("n", 100), ("sound_n", 30), ("seeds", 200))
    )
    defects: dict[str, list[Asked]] = {plant.name: [] for plant in plants()}
    sound: dict[tuple[str, str], list[Asked]] = {(name, task): [] for name in SOUND for task in GRIDS}
    for text in range(min(TEXTS, max(SEEDS, seeds))):
        tasks = task_set(part=text)
        plans = {task: grid_of(tasks, task, sound_n) for task in GRIDS}
        for seed in range(text, max(SEEDS, seeds), TEXTS):
            with tempfile.TemporaryDirectory() as folder:
                for number, plant in enumerate(plants() if seed < SEEDS else []):
                    defects[plant.name].append(recovered(tasks, plant, n, seed, Path(folder) / str(number)))
                for (name, task), found in sound.items() if seed < seeds else ():
                    own = of_seed(plans[task], sound_n, seed)
                    found.append(heard(tasks, own, SOUND[name], seed, Path(folder) / f"{name}, {task}"))
            tasks.forget()
    rows = [defect_row(plant, defects[plant.name], n) for plant in plants()]
    return rows + [quiet_row(*key, found, sound_n) for key, found in sound.items()]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What a reader of the rows must know."""
    return [
        "Every seed is asked samples of its own: all seeds of a row are different data; their records say which in `index`.",
        "Tests of a sound oracle err as a family: Holm at 5 % over exact, discrete tests that depend on each other. Of 20,000 "
        "simulated studies of a flat 0.7 (30 samples, 7 depths, 5 lengths: 18 tests) 2.5 % raise an alarm, 1.7 % of 0.925. At "
        "2.5 % a row of 200 seeds has more than 10 loud ones once in 80 rows.",
    ]


def defect_row(plant: Plant, found: list[Asked], n: int) -> dict[str, Any]:
    """One row: what was planted, what the report says of seed 0, and how many seeds have it in their interval."""
    value, low, high = found[0].said
    inside = sum(a.said[1] <= plant.size <= a.said[2] for a in found)
    return {
        "planted": plant.name,
        "task": plant.task,
        "the report's measure": plant.measure,
        "true size": round(plant.size, 3),
        "estimate": round(value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "recovered": "yes" if low <= plant.size <= high else "no",
        "seeds": f"true size inside in {inside} of {len(found)}",
        "different data": different(found, n),
    }


def quiet_row(name: str, task: str, found: list[Asked], n: int) -> dict[str, Any]:
    """One row: how many seeds have no alarm, and what kinds the others have."""
    quiet, seeds = sum(not a.alarms for a in found), len(found)
    low, high = wilson(quiet, seeds)
    kinds = Counter(re.split(r"[\d:]", alarm)[0].strip() for a in found for alarm in a.alarms)
    loud = f" (alarms: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common(4))})" if kinds else ""
    return {
        "planted": f"nothing: {name}",
        "task": task,
        "the report's measure": "share of seeds without an alarm",
        "true size": ">= 0.95",
        "estimate": round(quiet / seeds, 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "recovered": "yes" if quiet >= 0.95 * seeds else "no",
        "seeds": f"no alarm in {quiet} of {seeds}{loud}",
        "different data": different(found, n),
    }


def different(found: list[Asked], n: int) -> str:
    """How many seeds were asked something else, and what."""
    return f"{len({a.data for a in found})} of {len(found)} seeds: samples s x {n} on, text s mod {TEXTS}"
