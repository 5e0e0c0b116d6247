"""What training asked and what its tokens could see, beside what is probed: the table, and flags where either falls
short of the training length."""

from collections.abc import Iterator, Sequence

import numpy as np

from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts, Value
from lcprobe.analysis.report.wording import READ_FIRST, Sentence, listed
from lcprobe.training_data import SHARES, TrainingData

FAR_ENOUGH = 0.5
"""Share of the training length that the median piece of a document, and the 95 % quantile of needle distance, should
reach."""
MOST_NAMES = 4
"""Models that a sentence names."""


def training_data_rows(results: Results) -> list[dict[str, Value]]:
    """One row per run: quantiles in tokens of needle distances and of what tokens of text can see. Empty fields where
    a run has none, and no rows where no run recorded any."""
    if all(run.training_data is None for run in results.study.runs):
        return []
    rows = []
    for run in results.study.runs:
        data = run.training_data
        row: dict[str, Value] = {
            "model": run.name,
            "context_length": run.context_length,
            "length_schedule": run.length_schedule,
            "distance": None if data is None else data.distance,
            "text_share": None if data is None else data.text_share,
            "initial_state": None if data is None else data.initial_state,
        }
        data = data or TrainingData()
        for name in ("needle_distances", "visible", "visible_before"):
            values = getattr(data, name) or (None,) * len(SHARES)
            row |= {f"{name}_{round(100 * s)}": value for s, value in zip(SHARES, values, strict=True)}
        rows.append(row)
    return rows


def training_data_flags(results: Results) -> Iterator[Sentence]:
    """Warnings about runs whose training could not use, or did not ask for, its nominal length. Runs of one group
    share a sentence."""
    runs = [run for run in results.study.runs if run.extension == "none"]
    yield from _schedules(runs)
    known = [run for run in runs if run.training_data is not None]
    yield from _cut_short(known)
    yield from _asked_near(results, known)
    yield from _trained_ends(results)


def _trained_ends(results: Results) -> Iterator[Sentence]:
    """Where trained distances end before the training length, and what therefore counts as past training."""
    runs = {run.name: run for run in results.study.runs if run.extension == "none"}
    short: dict[tuple[str, int, int, float], list[RunFacts]] = {}
    for e in results.extrapolations:
        run = runs.get(e.where.model)
        if run is not None and run.training_data is not None and e.trained_end < run.context_length:
            place = (e.where.task, e.trained_end, run.context_length, run.training_data.longest or 0.0)
            short.setdefault(place, []).append(run)
    for (task, end, length, longest), found in short.items():
        inside = f"longest tested length within them, {end:,} tokens" if end else "shortest tested length"
        text = (
            f"Trained distances end before the training length: no training question of {_named(found)} is about a "
        )
        text += (
            f"needle more than {longest:,.0f} tokens back, and the training length is {length:,}. On {task}, past "
        )
        text += f"the training length therefore begins after the {inside}."
        kind = "Trained distances end before the training length"
        yield Sentence(READ_FIRST, text, True, task=task, kind=kind, about=_groups(found), unit="model")


def _schedules(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    groups: dict[str, list[RunFacts]] = {}
    for run in runs:
        if run.length_schedule:
            groups.setdefault(run.length_schedule, []).append(run)
    if groups:
        each = "; ".join(f"{_named(found)}: {schedule}" for schedule, found in groups.items())
        text = f"Context lengths changed over the training budget ({each}). The training length is the longest, and "
        yield Sentence(READ_FIRST, f"{text}FLOPs are estimated at it throughout.")


def _cut_short(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    short: dict[int, list[tuple[RunFacts, float, float]]] = {}
    for run in runs:
        median = None if run.training_data is None else run.training_data.median_visible
        if run.training_data is not None and median is not None and median < FAR_ENOUGH * run.context_length:
            short.setdefault(run.context_length, []).append((run, median, run.training_data.text_share))
    for length, found in short.items():
        medians, shares = [median for _, median, _ in found], [share for _, _, share in found]
        text = (
            f"Short pieces of text: half of the text that {_named([run for run, *_ in found])} read in training is "
        )
        text += f"in pieces of at most {_span(medians)} tokens, {_parts(medians, length)} of the training length of "
        text += f"{length:,}; document starts and the ends of sequences cut what a token can see. Text is "
        text += f"{_percent(shares)} of the training tokens: on text this was training at {_span(medians)} tokens."
        names = _groups([run for run, *_ in found])
        yield Sentence(READ_FIRST, text, True, kind="Trained on short pieces of text", about=names, unit="model")


def _asked_near(results: Results, runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    near: dict[tuple[int, str], list[tuple[RunFacts, float]]] = {}
    for run in runs:
        farthest = None if run.training_data is None else run.training_data.farthest
        if run.training_data is not None and farthest is not None and farthest < FAR_ENOUGH * run.context_length:
            near.setdefault((run.context_length, run.training_data.distance), []).append((run, farthest))
    for (length, distance), found in near.items():
        farthest = [tokens for _, tokens in found]
        text = (
            f"Rarely asked far back: 95 % of the training questions of {_named([run for run, _ in found])} are about "
        )
        text += (
            f"a needle at most {_span(farthest)} tokens back, {_parts(farthest, length)} of the training length of "
        )
        text += f"{length:,} (distance: {distance}). {_probed(results, {run.name for run, _ in found})}"
        text += "A model that is not asked farther back is not trained on its length."
        names = _groups([run for run, _ in found])
        yield Sentence(READ_FIRST, text, True, kind="Rarely asked far back", about=names, unit="model")


def _probed(results: Results, models: set[str]) -> str:
    """The distances of the probe in words; empty where it has no needle."""
    records = results.data.records
    kept = np.isin(texts(records, "model"), sorted(models)) & (texts(records, "control") == "none")
    distances = numbers(records, "distance")[kept]
    distances = distances[~np.isnan(distances)]
    if not len(distances):
        return ""
    median, most = np.quantile(distances, [0.5, 1], method="inverted_cdf")
    return f"The probe asks {median:,.0f} tokens back in the median and {most:,.0f} at most. "


def _named(runs: Sequence[RunFacts]) -> str:
    groups = _groups(runs)
    rest = f" and {len(groups) - MOST_NAMES} more" if len(groups) > MOST_NAMES else ""
    return listed(groups[:MOST_NAMES]) + rest


def _groups(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.group for run in runs))


def _span(tokens: Sequence[float]) -> str:
    low, high = min(tokens), max(tokens)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _parts(tokens: Sequence[float], length: int) -> str:
    low, high = (f"{value / length:.2f}" for value in (min(tokens), max(tokens)))
    return low if low == high else f"{low} to {high}"


def _percent(shares: Sequence[float]) -> str:
    low, high = (f"{share:.0%}" for share in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"
