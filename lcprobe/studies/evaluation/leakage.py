"""The leakage check: shortcut policies without retrieval answer the tasks of a config, and none may score above
chance.

Implements `evaluate.py CONFIG --cheat`; it needs no trained run.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.analysis.leakage import LeakageCell, PolicyScores, leakage_summary, leakage_table
from lcprobe.analysis.report.tables import write_csv
from lcprobe.config import Config
from lcprobe.data.prepare import find_prepared, prepare
from lcprobe.errors import ConfigError, unknown_name
from lcprobe.files import write_json
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES, score_policies
from lcprobe.probing.runner import UnitItem
from lcprobe.probing.scoring import Score
from lcprobe.probing.units import Unit
from lcprobe.probing.unmade import NotMade
from lcprobe.schema import plain
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.evaluation.session import no_cell
from lcprobe.studies.planning.preflight import check_tasks_fit
from lcprobe.tasks.episode import SUITE
from lcprobe.words import width_of

ABOUT = (
    "Shortcut policies without retrieval against the stated chance, on the cells of the grids, over all strata of "
    "depth (in the first stratum the target value often comes first). + above its own 95 % range, - below it, ! "
    "exceeds chance (one-sided, Holm over the whole table), * the policy solves the task and is not tested. "
    "distinct: policies whose answers differ."
)

LEAKAGE_ANSWERS = 800
"""Least answers of a policy to a task at a length and format: policies are cheap, and with fewer a leak of a few
points would go undetected."""
MARKS = {"EXCEEDS": "!", "above its range": "+", "below": "-", "the task": "*"}
log = logging.getLogger(__name__)


def check_leakage(config: Config, out: Path, trained_on: str = "") -> list[LeakageCell]:
    """Run every policy on every task, format and length of the probe's grids; print the table and write it to `out`.
    trained_on: see `prepare`.

    Raises ConfigError without tasks and grids and for an unknown policy, EpisodeError when no cell of the grids can
    be built.
    """
    chosen = tuple(POLICIES if config.probe.policies is None else config.probe.policies)
    for policy in chosen:
        if policy not in POLICIES:
            raise unknown_name("probe.policies", policy, POLICIES)
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    check_tasks_fit([config], training=False, known=() if find_prepared(config.data, trained_on) is None else [0])
    tasks = TaskSet(config.probe, prepare(config.data, trained_on=trained_on).materials("probe"))
    plan = tasks.plan(config.probe.grids, config.train.context_length)
    units = [unit for unit in plan.units if unit.control == "none"]
    table, notes = run_policies(tasks, units, LEAKAGE_ANSWERS, chosen)
    fewest = min((unit.strata * unit.n for unit in units), default=LEAKAGE_ANSWERS)
    if fewest < LEAKAGE_ANSWERS:
        reason = "with fewer, a leak of a few points would go undetected"
        notes.append(f"n: {LEAKAGE_ANSWERS} answers where a grid has fewer ({fewest}): {reason}")
    notes = [*plan.notes, *notes]
    if not table:
        raise no_cell(notes)
    facts = {
        "suite": SUITE,
        "tokenizer": tasks.materials.tokenizer.identity,
        "policies": _policy_docs(),
        "about": ABOUT,
    }
    rows = [asdict(cell) for cell in table]
    write_csv(out / "cheating.csv", rows)
    write_json(
        out / "cheating.json",
        {**facts, "tasks": plain(config.probe.tasks), "notes": notes, "found": leakage_summary(table), "rows": rows},
    )
    title = "accuracy of policies without retrieval"
    if width_of() is None:
        print_rows(pivot(table), title)
    else:
        print_rows(highest(table), f"{title}: the highest of each cell", keys=3)
    say(ABOUT, *(f"note: {note}" for note in notes), leakage_summary(table), f"written: {out / 'cheating.csv'}")
    return table


def run_policies(
    tasks: TaskSet, units: Iterable[Unit], least: int = 1, policies: Iterable[str] = tuple(POLICIES)
) -> tuple[list[LeakageCell], list[str]]:
    """Run policies on units in all their strata, with more samples where these are fewer than `least` answers.

    Returns the table, and a note for each unit that was left out.
    """
    cells, notes = [], []
    for unit in units:
        log.info("leakage check: %s", unit.label)
        try:
            cells += unit_scores(tasks, replace(unit, n=max(unit.n, -(-least // unit.strata))), policies)
        except NotMade as error:  # the plan tries a few samples, this many
            notes.append(str(error))
    return leakage_table(cells), notes


def unit_scores(tasks: TaskSet, unit: Unit, policies: Iterable[str]) -> list[PolicyScores]:
    """Scores of policies on one unit. Raises NotMade where a sample cannot be made."""
    scores, first_of = [], {}
    for policy, scored in score_policies(unit, tasks, policies).items():
        same_as = first_of.setdefault(tuple(score.prediction for _, score in scored), policy)
        scores.append(
            PolicyScores(
                policy,
                unit.task,
                str(unit.formats),
                unit.length,
                *by_sample(scored),
                same_as="" if same_as == policy else same_as,
                is_the_task=policy in tasks.by_name[unit.task].solved_by,
            )
        )
    return scores


def by_sample(scored: Sequence[tuple[UnitItem, Score]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Hits and trials of each sample, (n_samples,) each, and the mean stated chance."""
    index = np.unique([one.factors.index for one, _ in scored], return_inverse=True)[1]
    hits = np.bincount(index, [score.exact for _, score in scored])
    return hits, np.bincount(index), float(np.mean([one.item.query.chance for one, _ in scored]))


def pivot(table: Iterable[LeakageCell]) -> list[dict[str, Any]]:
    """One row per task, format and length, one column per policy."""
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for c in table:
        row = rows.setdefault(
            (c.task, c.format, c.length), {"task": c.task, "format": c.format, "length": c.length, "n": c.n}
        )
        row.setdefault("chance", _short(c.chance))
        # the range depends on how a policy's answers cluster: the widest is printed
        low, high = row.get("95 % range", (1.0, 0.0))
        row["95 % range"] = min(low, c.low), max(high, c.high)
        row["distinct"] = row.get("distinct", 0) + (not c.same_as)
        row[c.policy.replace("_", " ")] = _short(c.accuracy) + MARKS.get(c.verdict, "")
    return [{**row, "95 % range": "–".join(map(_short, row["95 % range"]))} for row in rows.values()]


def highest(table: Iterable[LeakageCell]) -> list[dict[str, Any]]:
    """One row per task, format and length: the policy that scores highest beside chance, of those that do not solve
    the task, and how many policies exceed chance."""
    cells: dict[tuple[str, str, int], list[LeakageCell]] = {}
    for cell in table:
        cells.setdefault((cell.task, cell.format, cell.length), []).append(cell)
    rows = []
    for (task, format, length), own in cells.items():
        tested = [cell for cell in own if cell.verdict != "the task"]
        best = max(tested or own, key=lambda cell: cell.accuracy - cell.chance)
        row: dict[str, Any] = {"task": task, "format": format, "length": length, "chance": _short(best.chance)}
        row["highest"] = _short(best.accuracy) + MARKS.get(best.verdict, "")
        row["policy"] = best.policy.replace("_", " ")
        row["exceed"] = sum(cell.verdict == "EXCEEDS" for cell in tested)
        rows.append(row)
    if not any(row["exceed"] for row in rows):
        rows = [{key: value for key, value in row.items() if key != "exceed"} for row in rows]
    return rows


def _short(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def _policy_docs() -> dict[str, str]:
    return {name: (policy.__doc__ or "").strip() for name, policy in POLICIES.items()}
