"""Whole reports about models that do not differ: how many hold a false finding? And which differences are found?

Three models of equal accuracy answer the same samples; every statement that a report may make about them is tested
and corrected as in `findings.results.analyse`: gates, lengths, places, effective lengths, falls with distance, and
models against each other. Tasks are of three kinds in turn: a value that has no rival; four values among which all
models guess; and four values that are looked up with some probability, and else guessed. The last two have the
control wrong_key. Training seeds add noise to the logit of a run's accuracy: once per run and task, and again at
every length. Samples differ in difficulty, and do so for all models alike, which pairing uses.

A finding about a run (its lengths, and with one training seed the models "on these runs") is false where its sign is
not that of the run's own expected accuracy, which the noise has changed; a finding about models with several seeds is
always false, and so are places and falls with distance. Of a guesser, look-up and any effective length are false;
else an effective length is where a length up to it is below 0.85 of the base in the run's own expected skill. No
episodes are made: hits are drawn, and go through the analysis as panels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings import cells, slice_tests
from lcprobe.analysis.findings.cells import SCORES, Measured, NeedleTrials, Panel, PanelKey
from lcprobe.analysis.findings.contrasts import OF_MODELS, Contrast, of_models, of_one_model
from lcprobe.analysis.findings.extrapolation import CAN_DO, SHARE_OF_BASE, Extrapolation, extrapolations
from lcprobe.analysis.findings.families import Claim, corrected, gates_of
from lcprobe.analysis.findings.gates import HALF, Gate, closed_panels, gates
from lcprobe.analysis.findings.reach import fall_p
from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.stats.differences import Terms
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.seeds import seed_of
from lcprobe.tasks.episode import Formats

TITLE = "reports of models that do not differ, and power for those that do"
OPTIONS = ("n", "reports", "powers", "tasks", "many", "workers")
MODELS, FORMAT = ("a", "b", "c"), Formats("corpus", "words", "numbers")
CONTEXT, LENGTHS, DEPTHS = 128, (64, 128, 256, 512, 1024), (0.1, 0.3, 0.5, 0.7, 0.9)
SEEDS, NOISE, EFFECTS = (1, 2, 3, 5), (0.0, 0.3, 0.6), (0.1, 0.2, 0.3)
ACCURACY, DIFFICULTY_SD = 0.6, 1.0
"""Accuracy of the models that do not differ; standard deviation of the samples' difficulty in logits."""
Kind = Literal["alone", "guessed", "looked up"]
KINDS: tuple[Kind, ...] = ("alone", "guessed", "looked up")
"""Of tasks, in turn."""
RIVALS, MANY_TASKS = 4, 13
NODES = np.polynomial.hermite_e.hermegauss(21)


@dataclass(frozen=True)
class Study:
    """One simulated study. rate: (run, task) -> (n_lengths,) expected skill of that run: accuracy but guessing."""

    data: Measured
    rate: dict[tuple[str, str], np.ndarray]


def expected(logit: np.ndarray) -> np.ndarray:
    """Mean accuracy over samples of normal difficulty, by quadrature."""
    nodes, weights = NODES
    shifted = logit[..., None] + DIFFICULTY_SD * nodes
    return (weights / weights.sum() / (1 + np.exp(-shifted))).sum(axis=-1)


def logit_of(accuracy: float) -> float:
    """The logit at which the expected accuracy is this, by bisection."""
    low, high = -8.0, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(np.array(middle)) < accuracy else (low, middle)
    return (low + high) / 2


def simulate(
    generator: np.random.Generator,
    tasks: int,
    seeds: int,
    noise: float,
    effect: float,
    n: int,
    kinds: Sequence[Kind] = KINDS,
) -> Study:
    """effect: by which the accuracy of model a is above that of b and c. kinds: of tasks, in turn."""
    names = [f"task{i}" for i in range(tasks)]
    kind_of = {name: kinds[i % len(kinds)] for i, name in enumerate(names)}
    runs = [_run(f"{m}-s{s}" if seeds > 1 else m, m, s) for m, s in product(MODELS, range(seeds))]
    level = {m: logit_of(ACCURACY + (effect if m == "a" else 0.0)) for m in MODELS}
    shape = (len(LENGTHS), len(DEPTHS), n)
    panels, rate = {}, {}
    for name in names:
        difficulty = generator.normal(0, DIFFICULTY_SD, n)
        for run in runs:
            logit = level[run.group] + noise * (generator.normal() + generator.normal(size=len(LENGTHS)))
            kind, where = kind_of[name], PanelKey(run.name, name, FORMAT)
            rate[run.name, name] = expected(logit) * (kind != "guessed")
            p = 1 / (1 + np.exp(-(logit[:, None, None] + difficulty)))
            found = generator.random(shape) < p * (kind != "guessed")
            if kind == "alone":
                panels[where] = _panel(where, found, 1.0)
                continue
            by_chance = generator.random((2, *shape)) < 1 / RIVALS
            panels[where] = _panel(where, found | by_chance[0], 1 / RIVALS)
            wrong_key = where._replace(control="wrong_key")
            panels[wrong_key] = _panel(wrong_key, by_chance[1], 1 / RIVALS)
    facts = [
        TaskFacts(name, name, 1.0 if kind == "alone" else 1 / RIVALS, kind != "alone", "")
        for name, kind in kind_of.items()
    ]
    study = StudyFacts("null", runs, facts, [], 0.0, [], {}, "", [])
    planned_cells = {x: dict.fromkeys(DEPTHS, n) for x in LENGTHS}
    controls = {name: ("none",) if kind == "alone" else ("none", "wrong_key") for name, kind in kind_of.items()}
    planned = {(name, FORMAT, control): planned_cells for name in names for control in controls[name]}
    return Study(Measured(study, panels, planned, (), pa.table({}), 0), rate)


@contextmanager
def without_intervals() -> Iterator[None]:
    """No intervals, which take most of the time: findings are by their p alone."""

    def counts(hits: np.ndarray, trials: np.ndarray) -> Proportion:
        return Proportion(int(hits.sum()), int(trials.sum()), hits.shape[-1], np.nan, np.nan)

    def bounds(terms: Terms, constant: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        none = np.full(terms[0][1].shape[:-1], np.nan)
        return none, none

    with (
        patch.object(slice_tests, "contrast_bounds", bounds),
        patch.object(cells, "proportion_of_cells", counts),
    ):
        yield


def claims_of(study: Study, whole: bool) -> list[Claim]:
    """Every claim of a report, corrected, but single cells, which stand behind their length. Without `whole`, those
    about single models are in their families but not tested: nothing is planted there, and a family that is not found
    leaves the correction of the others as it is."""
    data = study.data
    declared: list[Claim] = [c for task in data.tasks for c in of_models(data, task, cells=False)]
    panels = [where for where in data.panels if where.control == "none"]
    families = {where: f"{where.model} on {where.task}" for where in panels}
    if not whole:
        declared += [Claim(family=family, p=1.0) for family in families.values()]
        return corrected([*declared, *(Claim(branch=CAN_DO, family=family, p=1.0) for family in families.values())])
    of_each = gates(data)
    closed = closed_panels(of_each)
    declared += [*of_each, *(c for task in data.tasks for c in of_one_model(data, task, closed))]
    declared += extrapolations(data, closed, ratios=False)
    declared += [
        Claim(family=families[where], p=fall_p(data.panels[where]), given=gates_of(where))
        for where in panels
        if where not in closed
    ]
    return corrected(declared)


def is_false(claim: Claim, study: Study) -> bool:
    """Whether a finding contradicts the truth."""
    if isinstance(claim, Gate):
        rate = study.rate[claim.where.model, claim.where.task][LENGTHS.index(claim.length)]
        least = {"partly": 0.0, "acquired": HALF}.get(claim.lookup or "")
        return least is not None and bool(rate <= least)
    if isinstance(claim, Extrapolation):
        rate = study.rate[claim.where.model, claim.where.task]
        least = SHARE_OF_BASE * max(rate[i] for i, x in enumerate(LENGTHS) if x <= CONTEXT)
        beyond = [rate[i] for i, x in enumerate(LENGTHS) if (claim.base_length or 0) < x <= (claim.effective or 0)]
        too_long = claim.effective is not None and (max(rate) == 0 or any(one < least for one in beyond))
        limited = claim.resolved and claim.limit is not None
        return bool(too_long or (limited and rate[LENGTHS.index(claim.limit)] >= least))
    if not claim.resolved:
        return False
    if not isinstance(claim, Contrast):
        return True
    if claim.kind == "length":
        rate = study.rate[claim.subject, claim.task]
        truth = float(rate[LENGTHS.index(claim.length)] - rate[LENGTHS.index(CONTEXT)])
    elif claim.kind in OF_MODELS and claim.seeds is None:
        first, second = (study.rate[model, claim.task] for model in claim.subject.split(" − "))
        truth = float((first - second)[_places(claim)].mean())
    else:
        truth = 0.0
    return abs(truth) < 1e-12 or (truth > 0) != ((claim.difference or 0) > 0)


def _places(claim: Contrast) -> list[int]:
    """Lengths that a contrast of models is over."""
    if claim.kind != "models":
        return [LENGTHS.index(claim.length)]
    inside = "up to the training length" in claim.what
    return [i for i, x in enumerate(LENGTHS) if (x <= CONTEXT) == inside]


def null_row(tasks: int, seeds: int, noise: float, reports: int, n: int) -> dict[str, Any]:
    """Share of null reports with a false finding, and which."""
    generator = np.random.default_rng(seed_of("null reports", tasks, seeds, f"{noise:g}"))
    kinds: dict[str, int] = {}
    false = 0
    for _ in range(reports):
        study = simulate(generator, tasks, seeds, noise, 0.0, n)
        with without_intervals():
            claims = claims_of(study, whole=True)
        found = {_kind(claim) for claim in claims if is_false(claim, study)}
        false += bool(found)
        for kind in found:
            kinds[kind] = kinds.get(kind, 0) + 1
    low, high = map(float, wilson(false, reports))
    return {
        "models": "equal",
        "tasks": tasks,
        "training seeds": seeds,
        "seed sd, logits": noise,
        "true difference": 0.0,
        "reports": reports,
        "with a false finding": round(false / reports, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "holds (<= .05)": "yes" if low <= 0.05 else "NO",
        "of which": ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
    }


def power_row(tasks: int, seeds: int, noise: float, effect: float, reports: int, n: int) -> dict[str, Any]:
    """Share of the two true differences that are found, over tasks, and of reports that also hold a false finding
    about the pair that is equal."""
    generator = np.random.default_rng(seed_of("power", tasks, seeds, f"{noise:g}", f"{effect:g}"))
    found, at_length, false = [], [], 0
    for _ in range(reports):
        study = simulate(generator, tasks, seeds, noise, effect, n, ("alone",))
        claims = [c for c in claims_of(study, whole=False) if isinstance(c, Contrast)]
        right = [c for c in claims if c.resolved and c.subject.startswith("a − ") and (c.difference or 0) > 0]
        pairs = {(c.task, c.subject) for c in claims if c.subject.startswith("a − ")}
        found.append(len({(c.task, c.subject) for c in right if c.kind == "models"}) / len(pairs))
        at_length.append(sum(c.kind == "model" for c in right) / len(pairs) / len(LENGTHS))
        false += any(is_false(c, study) for c in claims if c.subject == "b − c")
    low, high = map(float, wilson(false, reports))
    return {
        "models": "a is better",
        "tasks": tasks,
        "training seeds": seeds,
        "seed sd, logits": noise,
        "true difference": effect,
        "reports": reports,
        "with a false finding": round(false / reports, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "holds (<= .05)": "yes" if low <= 0.05 else "NO",
        "power, models": round(float(np.mean(found)), 3),
        "power, one length": round(float(np.mean(at_length)), 3),
    }


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """options: n (100) samples per cell, reports (100) of each null study, powers (50) of each with a difference,
    tasks (3) of each, many (0) reports of 13 tasks with one and with three seeds, workers (2) processes."""
    defaults = {"n": 100, "reports": 100, "powers": 50, "tasks": 3, "many": 0, "workers": 2}
    n, reports, powers, tasks, many, workers = (int(options.get(name, default)) for name, default in defaults.items())
    with ProcessPoolExecutor(workers) as pool:
        null = [
            pool.submit(null_row, tasks, seeds, noise, reports, n)
            for seeds, noise in product(SEEDS, NOISE)
            if reports
        ]
        null += [pool.submit(null_row, MANY_TASKS, seeds, 0.3, many, n) for seeds in (1, 3) if many]
        power = [
            pool.submit(power_row, tasks, seeds, noise, effect, powers, n)
            for effect, seeds, noise in product(EFFECTS, SEEDS, NOISE)
            if powers
        ]
        return [row.result() for row in (*null, *power)]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    return [
        f"Three models at accuracy {ACCURACY:g}, lengths {', '.join(map(str, LENGTHS))} (trained at {CONTEXT}), "
        f"{len(DEPTHS)} strata of depth. Power: share of pairs and tasks with a true difference that are findings, "
        "over all lengths up to the training length or past it; and of single lengths.",
    ]


def _kind(claim: Claim) -> str:
    if isinstance(claim, Contrast):
        return claim.kind
    if isinstance(claim, Gate):
        return "look-up"
    return "effective length" if isinstance(claim, Extrapolation) else "fall with distance"


def _run(name: str, group: str, seed: int) -> RunFacts:
    return RunFacts(name, group, group, seed, CONTEXT, 1, 1, 1, None, None, "0" * 32, 0, "0" * 16, "swept")


def _panel(where: PanelKey, found: np.ndarray, chance: float) -> Panel:
    hits, n = found.astype(np.int64), found.shape[2]
    nothing = {name: (np.zeros(hits.shape[:2]), np.zeros(hits.shape[:2])) for name in SCORES}
    nothing["chance"] = (np.full(hits.shape[:2], chance * n), np.full(hits.shape[:2], n))
    i, j, c = (x.ravel() for x in np.indices(hits.shape))
    distance = (1 - np.array(DEPTHS)[j]) * np.array(LENGTHS)[i]
    trials = NeedleTrials(distance, c, hits.ravel().astype(float), i * len(DEPTHS) + j)
    strata = (len(DEPTHS),) * len(LENGTHS)
    return Panel(
        where, LENGTHS, DEPTHS, strata, np.arange(n), hits, np.ones_like(hits), np.zeros_like(hits), nothing, trials
    )
