"""Planted models: does the report recover the defect of an oracle, and raise no alarm about sound ones?

Every oracle answers real episodes through the runner; its records are analysed as a study of its own, and the
recovered size is read from the report's tables: for seed 0 from its files, for the others from its rows. A sound
oracle raises an alarm wherever tests, gates or sentences of the report claim that something is wrong with it.

Seeds are different data: seed s has samples s * n .. s * n + n - 1 (column `index` of its records) over text s modulo
N_TEXTS, so that even an oracle without randomness, such as a window, gets other haystacks, needles and places in
every seed. Only the oracles of one seed share episodes, as the models of a study do.
"""

import csv
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
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
from lcprobe.probing.grid import TaskSet
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
from lcprobe.probing.store import MemoryStore, RecordStore, Store
from lcprobe.probing.units import Plan
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer

TITLE = "planted models"
OPTIONS = ("n", "sound_n", "seeds")
CONTEXT = 256
PLANTED_TASKS = {
    "single": {"type": "niah", "n_keys": 1, "word_pairs": True},
    "multikey": {"type": "niah", "n_keys": 4, "word_pairs": True},
}
GRID_WARNINGS = ("No zero-distance control", "Few samples")
"""Warnings of the summary that are about the grid and not about a model."""
GRIDS = ("single", "multikey", "formats")
DEFECT_SEEDS = 20
"""Seeds of each defect. One interval in twenty misses by design."""
N_TEXTS = 10
"""Haystacks of disjoint speeches: a seed has one of them."""
SOUND: dict[str, HitRate] = {"perfect": perfect, "flat noise 0.9": noise(0.9), "flat noise 0.6": noise(0.6)}
PLANTED_STRATA = 8
"""Of depth: four of them make up the middle half, in which `blind_middle` is blind, exactly."""
PLANTED_LENGTHS = [0.5, 1, 2, 4, 8]


@dataclass(frozen=True)
class Plant:
    """A defect. size: the value of `measure` that the report should have, read from the row of its table that `where`
    picks.
    """

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
        """The columns of the interval."""
        return ("half_life_low", "half_life_high") if self.column == "half_life" else ("low", "high")


def all_plants() -> list[Plant]:
    """The defects and their sizes."""
    windows = ((150, "single"), (600, "single"), (300, "multikey"))
    half_lives = ((100, "single"), (400, "single"), (200, "multikey"))
    measure = "effective reach, tokens"
    plants = [Plant(f"sees the last {w} tokens", sees_last(w), t, measure, "reach", "reach", w) for w, t in windows]
    for h, task in half_lives:
        name = f"forgets half every {h} tokens"
        plants.append(Plant(name, forgetting(h), task, "half-life, tokens", "reach", "half_life", h))
    for p, left in ((0.9, 0.0), (0.9, 0.6)):
        words, table = f"finds {left:g}, else {p:g},", ("contrasts", "difference", p - left)
        middle, uuids = "accuracy at the ends - in the middle", "accuracy on numbers - on UUIDs"
        plants.append(Plant(f"{words} in the middle", blind_middle(p, left), "single", middle, *table, _far_middle))
        plants.append(
            Plant(f"{words} of UUIDs", blind_to_uuids(p, left), "formats", uuids, *table, _numbers_against_uuids)
        )
    return plants


def _far_middle(row: dict[str, Any]) -> bool:
    return row["kind"] == "lost in the middle" and int(row["length"]) == 4 * CONTEXT


def _numbers_against_uuids(row: dict[str, Any]) -> bool:
    return row["kind"] == "format" and row["what"].endswith("numbers − corpus/words/uuids")


def task_set(stream: TokenStream | None = None, part: int = 0, tasks: Mapping[str, Any] = PLANTED_TASKS) -> TaskSet:
    """Tasks over a twelfth of the speeches, or over a given stream."""
    tokenizer = load_tokenizer()
    if stream is None:
        text = "\n\n".join(text for i, text in enumerate(speeches()) if i % 12 == part)
        stream = TokenStream.from_text("corpus", text, tokenizer)
    return TaskSet(build(ProbeConfig, {"tasks": dict(tasks)}, "probe"), Materials(tokenizer, stream))


def grid_of(tasks: TaskSet, task: str, n: int) -> Plan:
    """The grid of a plant: lengths and strata of a task, or two value formats at two lengths."""
    given: dict[str, Any] = {"tasks": [task], "lengths": PLANTED_LENGTHS, "depths": PLANTED_STRATA, "n": n}
    if task == "multikey":
        given |= {"controls": ["none", "wrong_key"]}
    if task == "formats":
        given |= {"tasks": ["single"], "lengths": [1, 2], "value": ["numbers", "uuids"]}
    return tasks.plan([build(Grid, given, "grid")], CONTEXT)


@dataclass(frozen=True)
class SeedResult:
    """The report's conclusions about one seed of an oracle. data: digest of its episodes."""

    data: str
    size: tuple[float, float, float] = (math.nan, 0.0, math.inf)
    """Of a defect: the estimate of its size and the bounds."""
    alarms: tuple[str, ...] = ()
    """Of a sound oracle: what the report claims to be wrong."""


def of_seed(plan: Plan, n: int, seed: int) -> Plan:
    """The same cells with n samples that no other seed has."""
    return replace(plan, units=[replace(unit, first=seed * n) for unit in plan.units])


def records_of(tasks: TaskSet, plan: Plan, hit_rate: HitRate, seed: int, store: RecordStore) -> pa.Table:
    """Records of an oracle's answers to every question of a plan, by the runner."""
    scorer = Planted(hit_rate, tasks.materials.tokenizer, seed)
    subject = ProbedCheckpoint("oracle", f"{seed:016x}", 1, 1)
    ids = run_plan(plan, tasks, scorer, subject, store, batch_tokens=1 << 20, scoring="teacher_forced")
    return store.read(ids)


def study_of(tasks: TaskSet, plan: Plan) -> StudyFacts:
    """The facts of a study of one oracle."""
    run = RunFacts("oracle", "oracle", "none", 0, CONTEXT, 1, 1, 1, None, None, "0" * 32, 0, "0" * 16, "swept")
    facts = []
    for name in dict.fromkeys(unit.task for unit in plan.units):
        unit = next(u for u in plan.units if u.task == name)
        query = tasks.by_name[name].episode(Factors(unit.formats, unit.length, 0.5, 0)).queries[0]
        facts.append(TaskFacts(name, name, query.chance, tasks.by_name[name].has_keys, ""))
    cells = [row for unit in plan.units for row in unit.rows()]
    return StudyFacts("planted", [run], facts, [], 0.0, [], {}, "", cells)


def recovered(tasks: TaskSet, plant: Plant, n: int, seed: int, folder: Path) -> SeedResult:
    """The report's estimate for one seed of a defect; from its files for seed 0."""
    plan = of_seed(grid_of(tasks, plant.task, n), n, seed)
    study, store = study_of(tasks, plan), MemoryStore() if seed else Store(folder / "records")
    records = records_of(tasks, plan, plant.hit_rate, seed, store)
    if seed:
        return SeedResult(data_of(records), reported_size(plant, all_tables(analyse(study, records))[plant.table]))
    write_report(study, records, folder)
    with open(folder / "tables" / f"{plant.table}.csv", newline="", encoding="utf-8") as file:
        return SeedResult(data_of(records), reported_size(plant, list(csv.DictReader(file))))


def alarms_of_seed(tasks: TaskSet, plan: Plan, hit_rate: HitRate, seed: int) -> SeedResult:
    """Alarms about one seed of an oracle. plan: with the samples of that seed."""
    records = records_of(tasks, plan, hit_rate, seed, MemoryStore())
    return SeedResult(data_of(records), alarms=tuple(alarms(analyse(study_of(tasks, plan), records))))


def data_of(records: pa.Table) -> str:
    """Digest of the indices and episodes of a seed."""
    rows = zip(records["index"].to_pylist(), records["episode"].to_pylist(), strict=True)
    return digest_json(sorted(set(rows)))


def reported_size(plant: Plant, rows: list[dict[str, Any]]) -> tuple[float, float, float]:
    """The size and its interval in rows of the report's table; infinite where a field is empty."""
    row = next(row for row in rows if plant.where(row))
    value, low, high = (
        math.inf if row[name] in ("", None) else float(row[name]) for name in (plant.column, *plant.bounds)
    )
    return value, 0.0 if math.isinf(low) else low, high


def alarms(results: Results) -> list[str]:
    """What a report claims to be wrong with a model: resolved differences of length, place and format, a reach, a
    half-life, an effective length inside the grid, a task or a look-up that is not acquired, and every warning of its
    summary but GRID_WARNINGS.
    """
    claims = [f"{c.kind} {c.length}: {c.difference:+.2f}" for c in results.contrasts if c.resolved]
    claims += [f"reach {r}" for r in results.reaches if r.refused is None and r.tokens is not None]
    claims += [f"half-life {h}" for h in results.half_lives if h.tokens is not None]
    claims += [f"effective length {e}" for e in results.extrapolations if e.effective is not None and not e.at_least]
    claims += [f"acquired: {g.acquired}" for g in results.gates if g.acquired == "not acquired"]
    claims += [f"look-up: {g.lookup}" for g in results.gates if g.lookup == "not acquired"]
    warned = [s.text for s in summary(results) if s.warning and not s.text.startswith(GRID_WARNINGS)]
    return claims + [f"warning: {text}" for text in warned]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per defect, then the number of seeds of each sound oracle without an alarm. options: n (100) samples
    per cell, sound_n (30) those of sound oracles, seeds (200) of each of them.
    """
    n, sound_n, seeds = (
        int(options.get(name, default)) for name, default in (("n", 100), ("sound_n", 30), ("seeds", 200))
    )
    defects: dict[str, list[SeedResult]] = {plant.name: [] for plant in all_plants()}
    sound: dict[tuple[str, str], list[SeedResult]] = {(name, task): [] for name in SOUND for task in GRIDS}
    for text in range(min(N_TEXTS, max(DEFECT_SEEDS, seeds))):
        tasks = task_set(part=text)
        plans = {task: grid_of(tasks, task, sound_n) for task in GRIDS}
        for seed in range(text, max(DEFECT_SEEDS, seeds), N_TEXTS):
            with tempfile.TemporaryDirectory() as folder:
                for number, plant in enumerate(all_plants() if seed < DEFECT_SEEDS else []):
                    defects[plant.name].append(recovered(tasks, plant, n, seed, Path(folder) / str(number)))
                for (name, task), results in sound.items() if seed < seeds else ():
                    own = of_seed(plans[task], sound_n, seed)
                    results.append(alarms_of_seed(tasks, own, SOUND[name], seed))
            tasks.forget()
    rows = [defect_row(plant, defects[plant.name], n) for plant in all_plants()]
    return rows + [quiet_row(*key, results, sound_n) for key, results in sound.items()]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    return [
        "Every seed has samples of its own: all seeds of a row are different data; column `index` of their records "
        "names the samples.",
        "Tests of a sound oracle err as a family: Holm at 5 % over exact, discrete tests that depend on each other. "
        "Of 20,000 "
        "simulated studies of a flat 0.7 (30 samples, 7 depths, 5 lengths: 18 tests) 2.5 % raise an alarm, 1.7 % of "
        "0.925. At "
        "2.5 %, one row of 200 seeds in 80 has more than 10 with an alarm.",
    ]


def defect_row(plant: Plant, results: list[SeedResult], n: int) -> dict[str, Any]:
    """One row: the planted size, the report's estimate for seed 0, and how many seeds have the true size in their
    interval.
    """
    value, low, high = results[0].size
    inside = sum(r.size[1] <= plant.size <= r.size[2] for r in results)
    return {
        "planted": plant.name,
        "task": plant.task,
        "the report's measure": plant.measure,
        "true size": round(plant.size, 3),
        "estimate": round(value, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "recovered": "yes" if low <= plant.size <= high else "no",
        "seeds": f"true size inside in {inside} of {len(results)}",
        "different data": distinct_data(results, n),
    }


def quiet_row(name: str, task: str, results: list[SeedResult], n: int) -> dict[str, Any]:
    """One row: how many seeds have no alarm, and the kinds of alarms of the others."""
    quiet, seeds = sum(not r.alarms for r in results), len(results)
    low, high = wilson(quiet, seeds)
    kinds = Counter(re.split(r"[\d:]", alarm)[0].strip() for r in results for alarm in r.alarms)
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
        "different data": distinct_data(results, n),
    }


def distinct_data(results: list[SeedResult], n: int) -> str:
    """How many seeds have different data, and which."""
    return f"{len({r.data for r in results})} of {len(results)} seeds: samples s x {n} on, text s mod {N_TEXTS}"
