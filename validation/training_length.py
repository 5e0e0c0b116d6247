"""Planted relations to the training length: does the report say ceiling, fixed reach or no ceiling, and only then?

Models of one architecture, three training seeds at each of four training lengths, are probed on one plan: the union
of their multiples. Every seed of the validation has samples of its own (see `planted`), and the records of a model go
through `analyse` and `summary` like those of a study.

An oracle's answer is either the value or a wrong one, so that its record of a question is one of two. The runner
makes both for the episodes of a seed, once, and a model takes the one that its hit rate and its random number choose:
the same records as if the runner had scored each model, as a test shows, at a fraction of the time.

The last rows simulate the line alone (`stats.censored_line`), with effective lengths that are normal around it and
censored beyond the longest tested length: how often the interval of the slope has the true one.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.families import SHARES, Claim, corrected
from lcprobe.analysis.findings.gates import gates
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.findings.training_length.collapses import Collapse, collapses
from lcprobe.analysis.findings.training_length.length_fits import LengthFit, length_fits
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.training_length import TRAINING_LENGTH, verdict_text
from lcprobe.analysis.stats.censored_line import censored_line
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.errors import ConfigError
from lcprobe.probing.config import Grid
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.store import MemoryStore
from lcprobe.probing.units import Plan
from lcprobe.records import SCHEMA
from lcprobe.schema import build
from lcprobe.seeds import Stream, seed_of
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.planted import N_TEXTS, PLANTED_TASKS, data_of, of_seed, study_of, task_set

TITLE = "planted relations of effective length to training length"
OPTIONS = ("n", "seeds", "summaries", "simulations", "tasks")
GROUP = ("task",)
TRAINING_SEEDS = 3


@dataclass(frozen=True)
class Design:
    """A study of one task. trained: training lengths in tokens. lengths: as in a probe grid."""

    task: dict[str, Any]
    trained: tuple[int, ...]
    lengths: list[float | str]


DESIGNS = {
    "single": Design(PLANTED_TASKS["single"], (64, 128, 256, 512), [0.5, 1, 1.5, 2, 3, 4, 6, 8]),
    "multikey": Design(
        PLANTED_TASKS["multikey"], (128, 256, 512, 1024),
        [f"{t}t" for t in (96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)],
    ),
}  # fmt: skip
"""Four keys do not fit in 64 tokens."""
SIMULATED = "simulated"
STRATA = 3
SPREAD = 0.1
"""Standard deviation of log2 reach over training seeds, where seeds vary."""
CENSORED, RUN_SD = (0.0, 0.25, 0.5), 0.2
"""Of the simulated lines: shares that are censored, and the standard deviation of a run's log2 effective length."""
Columns = dict[str, np.ndarray]
HitRate = Callable[[Columns, int, float], np.ndarray]
"""Columns of the records, training length, factor of the seed's reach -> probability that the value is found."""


@dataclass(frozen=True)
class Relation:
    """A planted relation. allowed: verdicts that the report may give. slope: the true one, if there is one."""

    name: str
    task: str
    hit_rate: HitRate
    allowed: tuple[str, ...]
    slope: float | None = None
    varies: bool = False


def gradual(columns: Columns, half: float) -> np.ndarray:
    """A smooth fall of accuracy with length, half-way at `half` tokens."""
    return 0.95 / (1 + (columns["length"] / half) ** 4)


def within(columns: Columns, name: str, most: float, p: float = 1.0) -> np.ndarray:
    """Found with probability p where a column is at most so large."""
    return np.where(columns[name] <= most, p, 0.0)


def flat(p: float) -> HitRate:
    """The same everywhere."""
    return lambda c, trained, factor: np.full(len(c["length"]), p)


NOTHING = ("no ceiling", "not resolved", "not tested")
CEILING, FIXED = ("ceiling",), ("fixed reach",)
RELATIONS = (
    Relation("length <= 2 x trained", "single", lambda c, t, f: within(c, "length", 2 * t), CEILING, 1.0),
    Relation("gradual, half at 3 x trained", "single", lambda c, t, f: gradual(c, 3 * t * f), CEILING, 1.0, True),
    Relation("needle within 170", "single", lambda c, t, f: within(c, "distance", 170 * f), FIXED, 0.0, True),
    Relation("needle within 200", "multikey", lambda c, t, f: within(c, "distance", 200 * f, 0.9), FIXED, 0.0, True),
    Relation("length <= 256", "single", lambda c, t, f: within(c, "length", 256), FIXED, 0.0),
    Relation(
        "length <= 123 x (trained / 64)^0.7", "single",
        lambda c, t, f: within(c, "length", 123 * (t / 64) ** 0.7 * f), ("not resolved",), 0.7, True,
    ),
    Relation(
        "length <= 134 x (trained / 64)^0.3", "single",
        lambda c, t, f: within(c, "length", 134 * (t / 64) ** 0.3 * f), ("not resolved",), 0.3, True,
    ),
    Relation(
        "gradual, half at 16 x sqrt(trained)", "single", lambda c, t, f: gradual(c, 16 * t**0.5 * f),
        ("not resolved",), 0.5, True,
    ),
    Relation("perfect", "single", flat(1.0), ("no ceiling",)),
    Relation("flat noise 0.9", "single", flat(0.9), ("no ceiling",)),
    Relation("flat noise 0.6", "single", flat(0.6), NOTHING),
    Relation("flat noise at chance", "multikey", flat(0.0), NOTHING),
)  # fmt: skip


@dataclass(frozen=True)
class Wrong:
    """A scorer that never finds the value: it prints another candidate, or nothing where there is none."""

    tokenizer: Tokenizer
    right: bool = False

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what it prints; with `right`, of the value itself."""
        return [scored_text(item, self._answer(item), self.tokenizer) for item in items]

    def _answer(self, item: Item) -> str:
        if self.right:
            return item.query.answer
        others = (self.tokenizer.decode(choice).strip() for choice in item.query.candidates)
        return next((other for other in others if other != item.query.answer), "")


@dataclass(frozen=True)
class Answers:
    """Records of the episodes of one task and seed, found and not found, in the same order. data: their digest."""

    study: StudyFacts
    found: pa.Table
    missed: pa.Table
    columns: Columns
    data: str


def plan_of(tasks: TaskSet, task: str, n: int) -> Plan:
    """The plan of a study of all training lengths."""
    given = {"tasks": [task], "lengths": DESIGNS[task].lengths, "depths": STRATA, "n": n}
    return tasks.plan([build(Grid, given, "grid")], *DESIGNS[task].trained)


def answers(tasks: TaskSet, plan: Plan, trained: tuple[int, ...]) -> Answers:
    """Both records of every question of a plan, by the runner; and the facts of a study of all runs."""
    tables = []
    for right in (True, False):
        store, scorer = MemoryStore(), Wrong(tasks.materials.tokenizer, right)
        subject = ProbedCheckpoint("oracle", f"{right:016x}", 1, 1)
        ids = run_plan(plan, tasks, scorer, subject, store, batch_tokens=1 << 20, scoring="teacher_forced")
        tables.append(store.read(ids).select(SCHEMA.names))
    study = study_of(tasks, plan)
    runs = [
        replace(study.runs[0], name=f"L{t}-{s}", group=f"L{t}", architecture="oracle", context_length=t, seed=s)
        for t, s in product(trained, range(TRAINING_SEEDS))
    ]
    columns = {name: tables[0][name].to_numpy() for name in ("length", "distance", "depth", "chance")}
    return Answers(replace(study, runs=runs), tables[0], tables[1], columns, data_of(tables[0]))


def records_of(answers: Answers, relation: Relation, seed: int) -> pa.Table:
    """Records of all runs of a relation. A value that is not found is guessed among the candidates."""
    tables = []
    for run in answers.study.runs:
        stream = Stream("training length", relation.name, seed, run.name)
        draws = stream.uniform(len(answers.found) + 12)
        factor = 2.0 ** (SPREAD * (draws[:12].sum() - 6)) if relation.varies else 1.0  # a normal number, nearly
        p = relation.hit_rate(answers.columns, run.context_length, factor)
        chance = answers.columns["chance"]
        p = np.where(chance < 1, p + (1 - p) * chance, p)
        hits = draws[12:] < p
        both = pa.concat_tables([answers.found, answers.missed])
        table = both.take(pa.array(np.where(hits, 0, len(hits)) + np.arange(len(hits))))
        at = table.column_names.index("model")
        names = pa.array([run.name] * len(hits), SCHEMA.field("model").type)
        tables.append(table.set_column(at, SCHEMA.field("model"), names))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class SeedResult:
    """What the report concludes about one seed of a relation. said: whether its sentence is in the summary, None
    where no summary was written."""

    data: str
    fit: LengthFit
    collapse: Collapse
    said: bool | None


def concluded(answers: Answers, relation: Relation, seed: int, whole: bool) -> SeedResult:
    """whole: by `analyse` and `summary`; else by the two findings alone, at their share of the error rate."""
    records = records_of(answers, relation, seed)
    if not whole:
        data = load_records(answers.study, records)
        fits = length_fits(data, gates(data))
        others = [Claim(branch=branch, p=1.0) for branch in SHARES if branch != "training length"]
        (fit, *_) = [claim for claim in corrected([*fits, *others]) if isinstance(claim, LengthFit)]
        return SeedResult(answers.data, fit, collapses(data, fits)[0], None)
    results = analyse(answers.study, records)
    sentences = [s.text for s in summary(results) if s.topic == TRAINING_LENGTH]
    fit = results.length_fits[0]
    said = any(verdict_text(fit).rstrip(".") in text for text in sentences)
    return SeedResult(answers.data, fit, results.collapses[0], said)


def seeds_of(n: int, seeds: int, names: Iterable[str] = DESIGNS) -> Iterator[tuple[int, dict[str, Answers]]]:
    """Seeds with their episodes of the tasks that are named; those over one text follow each other."""
    designs = {name: DESIGNS[name] for name in names}
    for text in range(min(N_TEXTS, seeds)):
        tasks = task_set(part=text, tasks={name: design.task for name, design in designs.items()})
        plans = {name: plan_of(tasks, name, n) for name in designs}
        for seed in range(text, seeds, N_TEXTS):
            yield (
                seed,
                {name: answers(tasks, of_seed(plan, n, seed), designs[name].trained) for name, plan in plans.items()},
            )
            tasks.forget()


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per relation. options: n (60) samples per cell, seeds (200), summaries (10) seeds of which the whole
    summary is written, simulations (200) of each line, tasks (comma-separated: single, multikey, simulated).
    """
    every = [*DESIGNS, SIMULATED]
    names = options["tasks"].split(",") if "tasks" in options else every
    for name in names:
        if name not in every:
            raise ConfigError("tasks", name, ", ".join(every))
    defaults = {"n": 60, "seeds": 200, "summaries": 10, "simulations": 200}
    n, seeds, summaries, simulations = (int(options.get(name, default)) for name, default in defaults.items())
    relations = [relation for relation in RELATIONS if relation.task in names]
    results: dict[str, list[SeedResult]] = {relation.name: [] for relation in relations}
    for seed, by_task in seeds_of(n, seeds, [name for name in DESIGNS if name in names]):
        for relation in relations:
            results[relation.name].append(concluded(by_task[relation.task], relation, seed, seed < summaries))
    rows = [row(relation, results[relation.name], n) for relation in relations]
    if SIMULATED in names:
        rows += [simulated_row(runs, share, simulations) for runs in (1, 2, 3, 5) for share in CENSORED]
    return rows


def simulated_row(per_length: int, share: float, simulations: int) -> dict[str, Any]:
    """Coverage of the slope's interval, of lines with so many runs per training length, a share of them censored."""
    x = np.repeat(np.log2(DESIGNS["single"].trained), per_length)
    generator = np.random.default_rng(seed_of("censored line", per_length, share))
    limit = NormalDist(0, math.hypot(1.118, RUN_SD)).inv_cdf(1 - share) if share else math.inf
    covered, bounded = [], 0
    for _ in range(simulations):
        y = x - x.mean() + generator.normal(0, RUN_SD, len(x))
        line = censored_line(x.tolist(), np.minimum(y, limit).tolist(), (y > limit).tolist(), 0.0001)
        covered.append(line is None or line.slope.low <= 1 <= line.slope.high)
        bounded += line is not None and math.isfinite(line.slope.high - line.slope.low)
    low, high = wilson(sum(covered), simulations)
    return {
        "planted": f"line alone: {per_length} per length, {share:.0%} censored",
        "task": SIMULATED,
        "right verdicts": "interval has the true slope",
        "share right": round(float(np.mean(covered)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "verdicts": f"bounded in {bounded} of {simulations}",
        "true slope": 1.0,
    }


def row(relation: Relation, results: list[SeedResult], n: int) -> dict[str, Any]:
    """How often the report is right, and how often the interval of the slope has the true one."""
    right, seeds = sum(r.fit.verdict in relation.allowed for r in results), len(results)
    low, high = wilson(right, seeds)
    slopes = [r.fit.slope for r in results if r.fit.slope is not None]
    covered = [s.low <= relation.slope <= s.high for s in slopes if relation.slope is not None]
    values = [s.value for s in slopes if np.isfinite(s.value)]
    said = [r.said for r in results if r.said is not None]
    return {
        "planted": relation.name,
        "task": relation.task,
        "right verdicts": " | ".join(relation.allowed),
        "share right": round(right / seeds, 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "verdicts": counted(r.fit.verdict for r in results),
        "curves collapse": counted(r.collapse.verdict for r in results),
        "true slope": "" if relation.slope is None else relation.slope,
        "median slope": round(float(np.median(values)), 3) if values else "",
        "slope in interval": f"{sum(covered)} of {len(covered)}" if covered else "",
        "in the summary": f"{sum(said)} of {len(said)}",
        "different data": f"{len({r.data for r in results})} of {seeds} seeds, {n} samples each",
    }


def counted(items: Iterable[str]) -> str:
    """`ceiling 199, not resolved 1`."""
    return ", ".join(f"{name} {count}" for name, count in Counter(items).most_common())


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    return [
        *(
            f"{name}: training lengths {', '.join(map(str, design.trained))}, {TRAINING_SEEDS} training seeds each, "
            f"probed at {', '.join(map(str, design.lengths))}, in {STRATA} strata of depth; numbers are multiples of "
            "each training length, t are tokens."
            for name, design in DESIGNS.items()
        ),
        f"Where training seeds vary, log2 of their reach has a standard deviation of {SPREAD:g}.",
        "A relation that fails at once (length <= ...) is placed between two tested lengths, half an octave apart.",
    ]
