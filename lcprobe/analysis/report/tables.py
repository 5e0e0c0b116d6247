"""Results as CSV files and as rows for a tracker.

Text that a spreadsheet would run as a formula is quoted with an apostrophe. Numbers are written in full; what was not
measured is an empty field, never a number. See OWASP, "CSV injection".
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lcprobe.analysis.findings.cells import PanelKey, Unavailable
from lcprobe.analysis.findings.gates import GATE_CONTROLS
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.text_curves import TextCurves
from lcprobe.analysis.inputs import Value
from lcprobe.analysis.report import training_length
from lcprobe.analysis.report.charts.distance import bins_of
from lcprobe.analysis.report.published.chapter import published_rows
from lcprobe.analysis.report.training_data import training_data_rows
from lcprobe.analysis.stats.estimates import Estimate, Proportion
from lcprobe.files import write_atomic

TableRow = dict[str, Value]
TableRows = list[TableRow]


def safe(value: object) -> object:
    """A field that no spreadsheet takes for a formula; numbers stay numbers."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    with suppress(ValueError):
        float(text)
        return text
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r", "\n") else text


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows as one CSV file, atomically; columns in the order in which they first appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe(name) for name in columns])
    writer.writerows([safe(row.get(name)) for name in columns] for row in rows)
    write_atomic(path, text.getvalue())


def all_tables(results: Results) -> dict[str, TableRows]:
    """Every table by name; rows of one table have equal keys."""
    return {name: rows(results) for name, rows in TABLES.items()}


def model_rows(results: Results) -> TableRows:
    """Runs, one per trained model."""
    names = (
        "group",
        "layout",
        "seed",
        "context_length",
        "length_schedule",
        "params",
        "embedding_params",
        "tokens",
        "lr",
        "tuned",
    )
    names += ("seconds", "skipped_steps", "data_digest", "checkpoint", "started_from", "trained_extension")
    names += ("tokens_before",)
    return [
        {"model": run.name}
        | {name: getattr(run, name) for name in names}
        | {"context_length": run.own_context_length or run.context_length, "tokenizer": run.tokenizer}
        for run in results.study.runs
    ]


def cell_rows(results: Results) -> TableRows:
    """Every cell, controls included; `accuracy` is k / n, bounds are Wilson's."""
    context_lengths = {run.name: run.context_length for run in results.study.runs}
    return [
        {
            **_panel(cell.where),
            "equal_length": results.study.equal_length,
            "length": cell.length,
            "multiple": cell.length / context_lengths[cell.where.model],
            "depth": cell.depth,
            "strata": cell.strata,
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


def extrapolation_rows(results: Results) -> TableRows:
    """Accuracy by length, its ratio to that at the reference length, and in each row the effective length."""
    return [
        {
            **_panel(e.where),
            "equal_length": results.study.equal_length,
            "length": length,
            "multiple": length / e.context_length,
            "trained_end": e.trained_end,
            "reference_length": e.reference_length,
            "base_length": e.base_length,
            "level": e.level,
            **_estimate("", estimate),
            "ratio": None if ratio is None else ratio.value,
            "ratio_low": None if ratio is None else ratio.low,
            "ratio_high": None if ratio is None else ratio.high,
            "effective_length": e.effective,
            "effective_own_tokens": results.own_tokens(e.where, e.effective),
            "effective_is_at_least": e.at_least,
            "limit_p": e.p,
            "limit_p_report": e.p_report,
            "effective_note": e.note,
        }
        for e in results.extrapolations
        for length, estimate, ratio in e.by_length
    ]


def contrast_rows(results: Results) -> TableRows:
    """Every declared contrast, tested or not. One over several lengths, which `what` names, has none of its own."""
    names = ("kind", "family", "subject", "task", "format", "length", "what", "samples")
    return [
        {name: getattr(c, name) for name in names}
        | ({} if c.zone is None else {"length": None})
        | {"equal_length": results.study.equal_length}
        | _estimate("first_", c.first)
        | _estimate("second_", c.second)
        | {"difference": c.difference, "low": c.low, "high": c.high, "p": c.p}
        | {"seeds_low": c.seeds[0] if c.seeds else None, "seeds_high": c.seeds[1] if c.seeds else None}
        | {"p_seeds": c.p_seeds, "p_report": c.p_report, "verdict": c.verdict}
        for c in results.contrasts
    ]


def reach_rows(results: Results) -> TableRows:
    """Effective reach and half-life in tokens; empty tokens or bounds mean beyond the longest distance tested."""
    return [
        {
            **_panel(r.where),
            "reach": r.tokens if r.is_found else None,
            "low": r.low if r.is_found or (r.refused is None and r.tokens is None) else None,
            "high": r.high if r.is_found else None,
            "cell_below": r.between[0] if r.between and r.is_found else None,
            "cell_above": r.between[1] if r.between and r.is_found else None,
            "longest_distance": r.longest,
            "p": r.p,
            "p_report": r.p_report,
            "verdict": str(r),
            "half_life": h.tokens,
            "half_life_low": h.low,
            "half_life_high": h.high,
            "half_life_verdict": str(h),
        }
        for r, h in zip(results.reaches, results.half_lives, strict=True)
    ]


def distance_rows(results: Results) -> TableRows:
    """Accuracy in bins of distance at each length; without a length, over all of them, to which the reach is
    fitted."""
    by_length = [
        (r, n, bins_of(results, [r.where], n)) for r in results.reaches for n in _lengths_of(results, r.where)
    ]
    return [
        {**_panel(r.where), "length": length, "from": one.low, "to": one.high, "median": one.distance}
        | _estimate("", one.estimate)
        for r, length, bins in [*by_length, *((r, None, r.bins) for r in results.reaches)]
        for one in bins
    ]


def _lengths_of(results: Results, where: PanelKey) -> list[int]:
    return results.data.lengths(where.task, where.format)


def gate_rows(results: Results) -> TableRows:
    """Gates, with the scores of the controls."""
    rows = []
    for gate in results.gates:
        row = {**_panel(gate.where), "length": gate.length, "chance": gate.chance, **_estimate("", gate.accuracy)}
        for name in GATE_CONTROLS:
            row |= _estimate(f"{name}_", gate.controls.get(name))
        skill = (None,) * 3 if gate.skill is None else (gate.skill.value, gate.skill.low, gate.skill.high)
        row |= {"skill": skill[0], "skill_low": skill[1], "skill_high": skill[2]}
        row |= {"task": gate.where.task, "task_acquired": gate.acquired, "key_lookup": gate.lookup}
        rows.append(row | {"copies_whatever_key": gate.copies})
    return rows


def context_rows(results: Results) -> TableRows:
    """Plain text: every mean with its interval over windows; state_bytes is a size and not_finite a count."""
    rows = [row for curves in results.text for row in _curve_rows(curves)]
    return [row for row in rows if row["value"] is not None]


def bias_rows(results: Results) -> TableRows:
    """Biases that attention adds to scores by distance alone."""
    names = ("layer", "head", "encoding", "distance", "bias")
    return [{"model": run.name, **{n: row[n] for n in names}} for run in results.study.runs for row in run.biases]


def learning_rate_rows(results: Results) -> TableRows:
    """Learning-rate sweep of the study."""
    return [dict(row) for row in results.study.sweep]


def _curve_rows(t: TextCurves) -> Iterable[TableRow]:
    def row(measure: str, low: int, high: int, kept: int | None, mean: Estimate | None) -> TableRow:
        values = (None,) * 4 if mean is None else (mean.value, mean.low, mean.high, mean.n)
        own = dict(zip(("value", "low", "high", "windows"), values, strict=True))
        return {"model": t.model, "measure": measure, "from": low, "to": high, "kept": kept, **own}

    for b in t.bins:
        yield row("loss", b.low, b.high, None, b.loss)
        yield row("loss above base", b.low, b.high, None, b.difference)
    for at, mean in t.state_rms.items():
        yield row("state rms", at, at, None, mean)
        yield row("state bytes", at, at, None, None) | {"value": t.state_bytes.get(at)}
    for (length, kept), mean in t.remembrance.items():
        yield row("remembrance", length - kept, length, kept, mean)
    for name, count in zip(("predictions", "state values"), t.not_finite, strict=True):
        yield row(f"not finite: {name}", 0, t.longest, None, None) | {"value": count}


def _panel(where: PanelKey) -> TableRow:
    return {
        "model": where.model,
        "task": where.task,
        "haystack": where.format.haystack,
        "key_format": where.format.key,
        "value_format": where.format.value,
        "control": where.control,
    }


def _estimate(prefix: str, estimate: Proportion | Unavailable | None) -> TableRow:
    values = (None,) * 5
    if isinstance(estimate, Proportion):
        values = (estimate.k, estimate.n, estimate.value, estimate.low, estimate.high)
    names = ("k", "n", "accuracy", "low", "high")
    return {f"{prefix}{name}": value for name, value in zip(names, values, strict=True)}


TABLES: dict[str, Callable[[Results], TableRows]] = {
    "models": model_rows,
    "cells": cell_rows,
    "extrapolation": extrapolation_rows,
    "contrasts": contrast_rows,
    "training_length": training_length.fit_rows,
    "effective_length": training_length.effective_length_rows,
    "collapse": training_length.collapse_rows,
    "depth_effects": training_length.depth_effect_rows,
    "reach": reach_rows,
    "distance": distance_rows,
    "gates": gate_rows,
    "context": context_rows,
    "biases": bias_rows,
    "learning_rates": learning_rate_rows,
    "training_data": training_data_rows,
    "published": published_rows,
}
"""CSV files by name; a new one is a function above and one line here."""
