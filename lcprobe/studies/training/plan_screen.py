"""The first screen of `train.py`: what a study trains, at 80 columns. Models are columns where these have room, else
rows; seeds of a model are one; what is equal in all models is said once. Everything is in `plan.csv`, or `--full`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcprobe.errors import shorten
from lcprobe.models.parts import parts_of
from lcprobe.studies.console import note_lines
from lcprobe.studies.planning.costs import (
    data_notes,
    held_equal_note,
    matching_table,
    schedule_notes,
    whole_steps_notes,
)
from lcprobe.studies.planning.memory.estimate import memory_notes
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.studies.text_table import GAP, Column, render, table_lines
from lcprobe.words import counted, plural, roughly, short, short_bytes

SCREEN = 80
"""Columns of the screen where no terminal says how many it has."""
MAX_LAYOUT = 3
"""Lines of a layout in a column."""
MAX_AS_COLUMNS = 6
"""Models that stand side by side; of more, columns are compared more easily than rows."""


@dataclass(frozen=True)
class PlanTable:
    """rows: of matching_table, with the learning rate, one per model. runs: of each model, with its seeds. seconds:
    estimated for one run of each model. notes: by what they are about."""

    rows: list[dict[str, Any]]
    models: dict[str, list[PlannedRun]]
    seconds: dict[str, float]
    notes: dict[str, list[str]]


def plan_table(plan: StudyPlan, rates: Mapping[str, float | str]) -> PlanTable:
    """What the plan of a study says. rates: the learning rate of each model, or what decides it."""
    models: dict[str, list[PlannedRun]] = {}
    for run in plan.runs:
        models.setdefault(run.group, []).append(run)
    rows = []
    for row in matching_table(plan):
        name = str(row["model"])
        head = {"model": name, "runs": len(models[name])}
        rows.append({**head, **{k: v for k, v in row.items() if k != "model"}, "lr": rates[name]})
    hours = [next(float(v or 0) for k, v in row.items() if k.startswith("hours")) for row in rows]
    notes = {
        "budgets": [*held_equal_note(plan), *whole_steps_notes(plan)],
        "schedules": schedule_notes(plan),
        "runs and cells": list(plan.notes),
    }
    seconds = {str(row["model"]): 3600 * h for row, h in zip(rows, hours, strict=True)}
    return PlanTable(rows, models, seconds, {about: own for about, own in notes.items() if own})


def full_lines(plan: StudyPlan, table: PlanTable) -> list[str]:
    """Every run and every note in full, each on a line of its own."""
    return [
        _about(plan, table),
        *(f"run: {run.name}" for run in plan.runs),
        *data_notes(plan),
        *memory_notes(plan),
        *(note for own in table.notes.values() for note in own),
    ]


def screen_lines(plan: StudyPlan, table: PlanTable, everything: str, width: int | None = None) -> list[str]:
    """The screen: the table, what the study costs, notes folded by kind. everything: what has the rest. width: of the
    terminal; None: tables for SCREEN columns, names and statements whole."""
    cells = [_cells(table, row) for row in table.rows]
    as_columns = _models_as_columns(cells, width or SCREEN) if len(cells) <= MAX_AS_COLUMNS else None
    lines = as_columns or _models_as_rows(cells, width)
    of_gpus = data_notes(plan) if plan.config.study.plan_for != "here" else []
    lines += ["", _about(plan, table), *of_gpus, *memory_notes(plan), *note_lines(table.notes, everything)]
    return [*lines, f"everything: {everything}"]


def _about(plan: StudyPlan, table: PlanTable) -> str:
    """`9 runs: 3 models x 3 seeds; parameters within 0.08% of each other; 5.40M training tokens, 47 min here`."""
    n, models = len(plan.runs), len(table.models)
    each = Counter(len(runs) for runs in table.models.values())
    of_models = "" if models == n else f": {counted(models, 'model')}"
    if models != n and len(each) == 1:
        of_models += f" x {counted(next(iter(each)), 'seed')}"
    tokens = sum(run.config.train.trained_tokens for run in plan.runs)
    seconds = sum(table.seconds[run.group] for run in plan.runs)
    within = f"; {plan.config.match.amount} within {plan.mismatch:.2%} of each other" if models > 1 else ""
    machine, devices = plan.config.study.plan_for, plan.config.train.devices
    where = (
        "here" if machine == "here" else f"on {'one' if devices == 1 else devices} {plural(machine.upper(), devices)}"
    )
    return (
        f"{counted(n, 'run')}{of_models}{within}; {tokens:,} {plural('training token', tokens)}, "
        f"about {roughly(seconds)} {where} (estimated)"
    )


Cells = dict[str, tuple[str, str]]
"""Of a model: by the name of a row, its text in full and in short."""


def _cells(table: PlanTable, row: Mapping[str, Any]) -> Cells:
    name = str(row["model"])
    run = table.models[name][0]
    costs, train = run.matched.cost, run.config.train
    n, layers = len(table.models[name]), len(parts_of(run.matched.config).layers)
    memory = next(v for k, v in row.items() if k.startswith("memory"))
    lr = row["lr"] if isinstance(row["lr"], str) else f"{row['lr']:g}"
    state = costs.blocks.state_bytes + costs.blocks.kv_bytes
    same = {
        "runs": "1 seed" if n == 1 else f"x {n} seeds",
        "trained at": f"{train.context_length:,}",
        "layers": str(layers),
        "layout": str(row["layout"]),
        "d_model": str(row["d_model"]),
    }
    same |= {"model": name, "off budget": str(row["off budget"]), "state + cache": short_bytes(state)}
    same |= {"FLOPs a token": short(costs.flops), "lr": lr, "memory": f"{memory:.2f} GB"}
    same["time of a run"] = roughly(table.seconds[name])
    both: Cells = {key: (text, text) for key, text in same.items()}
    both["parameters"] = (f"{costs.params:,}", short(costs.params))
    both["tokens"] = (f"{train.trained_tokens:,}", short(train.trained_tokens))
    return both


ROWS = (
    "runs", "trained at", "layout", "layers", "d_model", "parameters", "off budget", "state + cache", "FLOPs a token",
    "lr", "tokens", "time of a run", "memory",
)  # fmt: skip
"""Of models side by side; what is empty in all, such as the distance from a budget that there is not, has no row."""
COLUMNS = (
    "runs", "trained at", "layers", "parameters", "state + cache", "FLOPs a token", "lr", "tokens", "time of a run",
    "memory",
)  # fmt: skip
"""Of models as rows."""


def _models_as_columns(cells: Sequence[Cells], width: int) -> list[str] | None:
    """One column per model, layouts folded; None where there is no room."""
    rows = [row for row in ROWS if any(own[row][0] for own in cells)]
    labels = Column("", rows)
    room = (width - labels.natural) // len(cells) - len(GAP)
    widths = []
    for own in cells:
        widths.append(max(len(own["model"][0]), *(len(own[row][0]) for row in rows if row != "layout")))
        widths[-1] = max(widths[-1], min(len(own["layout"][0]), room))
    if max(widths) > room:
        return None
    columns = [
        Column(own["model"][0], [_shown(own, row, MAX_LAYOUT * (room - 4)) for row in rows], number=True)
        for own in cells
    ]
    return render([labels, *columns], [labels.natural, *widths])


def _shown(own: Cells, row: str, longest: int) -> str:
    return shorten(own[row][0], longest) if row == "layout" else own[row][0]


def _models_as_rows(cells: Sequence[Cells], width: int | None) -> list[str]:
    """One row per model, in short numbers; what is equal in all is one line. Names are folded where there is no
    room, in pipes never."""
    equal = [name for name in COLUMNS if len(cells) > 1 and len({own[name][1] for own in cells}) == 1]
    columns = [Column("model", [own["model"][0] for own in cells])]
    columns += [Column(name, [own[name][1] for own in cells], number=True) for name in COLUMNS if name not in equal]
    lines = [] if not equal else ["in all models: " + ", ".join(f"{name} {cells[0][name][1]}" for name in equal)]
    return [*lines, *table_lines(columns, width)]
