"""Results as CSV files and as rows for a tracker. Text that a spreadsheet would run as a formula is quoted with an apostrophe.

Numbers are written in full; what was not measured is an empty field, never a number. See OWASP, "CSV injection".
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcprobe.analysis.findings.cells import Estimate, PanelKey
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import Mean
from lcprobe.files import write_atomic

Rows = list[dict[str, Any]]


def safe(value: object) -> object:
    """A field that no spreadsheet takes for a formula; numbers stay numbers."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as one CSV file, whole or absent; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe(name) for name in columns])
    writer.writerows([safe(row.get(name)) for name in columns] for row in rows)
    write_atomic(path, text.getvalue())


def bias_rows(results: Results) -> Rows:
    """What attention adds to scores by distance alone."""
    return [{"model": run.name, **row} for run in results.study.runs for row in run.biases]


def all_tables(results: Results) -> dict[str, Rows]:
    """Every table by name; rows of one table have equal keys."""
    return {
        "models": model_rows(results),
        "cells": cell_rows(results),
        "extrapolation": extrapolation_rows(results),
        "contrasts": contrast_rows(results),
        "reach": reach_rows(results),
        "distance": distance_rows(results),
        "gates": gate_rows(results),
        "context": context_rows(results),
        "biases": bias_rows(results),
        "learning_rates": [dict(row) for row in results.study.sweep],
    }


def model_rows(results: Results) -> Rows:
    """Runs and what they were trained on."""
    names = (
        "group",
        "layout",
        "seed",
        "context_length",
        "params",
        "embedding_params",
        "tokens",
        "lr",
        "tuned",
        "seconds",
    )
    names += ("skipped_steps", "data_digest", "checkpoint")
    return [{"model": run.name} | {name: getattr(run, name) for name in names} for run in results.study.runs]


def cell_rows(results: Results) -> Rows:
    """Every cell, controls included; `accuracy` is k / n, bounds are Wilson's."""
    multiples = {run.name: run.context_length for run in results.study.runs}
    return [
        {
            **_where(cell.where),
            "length": cell.length,
            "multiple": cell.length / multiples[cell.where.model],
            "depth": cell.depth,
            "planned_samples": cell.planned,
            "samples": cell.samples,
            "k": cell.k,
            "n": cell.n,
            "n_failed": cell.n_failed,
            "accuracy": cell.accuracy,
            "low": cell.low,
            "high": cell.high,
            "skill": cell.skill,
            "skill_low": cell.skill_bounds[0],
            "skill_high": cell.skill_bounds[1],
            **cell.means,
        }
        for cell in results.cells
    ]


def extrapolation_rows(results: Results) -> Rows:
    """Accuracy and ratio to the base by length, with the effective length of the model repeated in each row."""
    return [
        {
            **_where(e.where),
            "length": length,
            "multiple": length / e.context_length,
            "base_length": e.base_length,
            **_estimate("", estimate),
            "ratio": None if ratio is None else ratio.value,
            "ratio_low": None if ratio is None else ratio.low,
            "ratio_high": None if ratio is None else ratio.high,
            "effective_length": e.effective,
            "effective_is_at_least": e.at_least,
            "effective_note": e.note,
        }
        for e in results.extrapolations
        for length, estimate, ratio in e.by_length
    ]


def contrast_rows(results: Results) -> Rows:
    """Every declared comparison, tested or not."""
    names = ("kind", "family", "subject", "task", "format", "length", "what", "samples")
    return [
        {name: getattr(c, name) for name in names}
        | _estimate("first_", c.first)
        | _estimate("second_", c.second)
        | {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p, "p_holm": c.p_holm}
        | {"seeds_low": c.seeds[0] if c.seeds else None, "seeds_high": c.seeds[1] if c.seeds else None}
        | {"verdict": c.verdict}
        for c in results.contrasts
    ]


def reach_rows(results: Results) -> Rows:
    """Effective reach and half-life in tokens; empty tokens or bounds mean beyond the longest distance tested."""
    return [
        {
            **_where(r.where),
            "reach": r.tokens if r.refused is None else None,
            "low": r.low if r.refused is None else None,
            "high": r.high if r.refused is None else None,
            "cell_below": r.between[0] if r.between and r.refused is None else None,
            "cell_above": r.between[1] if r.between and r.refused is None else None,
            "longest_distance": r.longest,
            "verdict": str(r),
            "half_life": h.tokens,
            "half_life_low": h.low,
            "half_life_high": h.high,
            "half_life_verdict": str(h),
        }
        for r, h in zip(results.reaches, results.half_lives, strict=True)
    ]


def distance_rows(results: Results) -> Rows:
    """The curve behind the reach: bins of distance."""
    return [
        {**_where(r.where), "from": one.low, "to": one.high, "median": one.distance, **_estimate("", one.estimate)}
        for r in results.reaches
        for one in r.bins
    ]


def gate_rows(results: Results) -> Rows:
    """Acquired or not, and what the controls score."""
    made = []
    for gate in results.gates:
        row = {**_where(gate.where), "length": gate.length, "chance": gate.chance, **_estimate("", gate.accuracy)}
        for name in ("zero_distance", "no_needle", "wrong_key", "query_only"):
            row |= _estimate(f"{name}_", gate.controls.get(name))
        skill = gate.skill or (None, None, None)
        row |= {"skill": skill[0], "skill_low": skill[1], "skill_high": skill[2]}
        row |= {"task": gate.where.task, "task_acquired": gate.acquired, "key_lookup": gate.lookup}
        made.append(row | {"copies_whatever_key": gate.copies})
    return made


def context_rows(results: Results) -> Rows:
    """Plain text: every mean with its interval over windows; state_bytes is a size and not_finite a count."""
    names = ("model", "measure", "from", "to", "kept", "value", "low", "high", "windows")
    made = []

    def row(
        model: str, measure: str, at: tuple[int, int], kept: int | None, m: Mean | None, value: float | None = None
    ) -> None:
        own = (value, None, None, None) if m is None else (m.value, m.low, m.high, m.n)
        made.append(dict(zip(names, (model, measure, *at, kept, *own), strict=True)))

    for t in results.text:
        for b in t.bins:
            row(t.model, "loss", (b.low, b.high), None, b.loss)
            row(t.model, "loss above base", (b.low, b.high), None, b.difference)
        for at, mean in t.state_rms.items():
            row(t.model, "state rms", (at, at), None, mean)
            row(t.model, "state bytes", (at, at), None, None, t.state_bytes.get(at))
        for (length, kept), mean in t.remembrance.items():
            row(t.model, "remembrance", (length - kept, length), kept, mean)
        for name, count in zip(("predictions", "state values"), t.not_finite, strict=True):
            row(t.model, f"not finite: {name}", (0, t.longest), None, None, count)
    return [r for r in made if r["value"] is not None]


def _where(where: PanelKey) -> dict[str, Any]:
    return {
        "model": where.model,
        "task": where.task,
        "haystack": where.format.haystack,
        "key_format": where.format.key,
        "value_format": where.format.value,
        "control": where.control,
    }


def _estimate(prefix: str, estimate: object) -> dict[str, Any]:
    values = (None,) * 5
    if isinstance(estimate, Estimate):
        values = (estimate.k, estimate.n, estimate.value, estimate.low, estimate.high)
    return {
        f"{prefix}{name}": value for name, value in zip(("k", "n", "accuracy", "low", "high"), values, strict=True)
    }
