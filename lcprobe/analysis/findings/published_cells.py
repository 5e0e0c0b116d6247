"""Published cells beside ours: every number of the study (`analysis/published`) whose model, task and length we
probed, with the difference and its interval.

A published percentage is k of 250 other samples, so the two sides are independent. Its interval is Wilson's, that of
250 trials also where a sample has several references, and of a mean that of all samples of its parts: what is not
known of the spread makes the true interval narrower. Ours is what the records have, samples as clusters; a mean over
tasks or formats is taken only where every part is complete. Where ours of the same name is another task there is a
difference and no verdict, and in place of Table 1's mean of 13 tasks stands, on both sides, that of the tasks that
are the same.

The score that is compared is the substring score, as in the study, and exact match where there is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.cells import Measured, PanelKey, Slice, Unavailable
from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.published.tables import (
    MEAN,
    NEEDLE,
    PublishedCell,
    PublishedFormat,
    cells,
    models,
    ruler_cells,
    ruler_tasks,
    same_tasks,
)
from lcprobe.analysis.stats.binomial import agreement_probability
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.analysis.stats.intervals import Part, mean_of_cells, proportion_part, sum_bounds
from lcprobe.tasks.episode import Formats

OURS = {"repeat": "noise", "essay": "corpus", "word": "words", "number": "numbers", "uuid": "uuids"}
"""The study's words for formats, in ours."""
NEAREST_STRATUM = 0.06
"""A stratum counts as the published depth where its centre is no farther from it."""
Score = Literal["substring", "exact"]
Shares = Mapping[tuple[PanelKey, int], Mapping[tuple[float, int], tuple[float, int]]]
"""Substring scores by panel and length, then by depth and sample: sum and number."""


@dataclass(frozen=True)
class Comparison:
    """A published cell, and ours in the same place. model: ours; template: around its prompts. difference: ours less
    the published one, by the score `scored_by`."""

    cell: PublishedCell
    model: str
    template: str
    published: Estimate | Unavailable
    substring: Estimate | Unavailable
    exact: Estimate | Unavailable
    difference: Estimate | Unavailable
    scored_by: Score

    @property
    def as_published(self) -> bool:
        """Whether the prompts have what the study's scripts put around them."""
        return self.template == models()[self.cell.model].wrapper

    @property
    def same_task(self) -> bool:
        """Whether ours asks what the study asked."""
        return self.cell.task in same_tasks() or self.cell.task == MEAN

    @property
    def agrees(self) -> bool | None:
        """Whether the 95 % interval of the difference has zero; None without a difference, and of another task."""
        d = self.difference
        return None if isinstance(d, Unavailable) or not self.same_task else d.low <= 0 <= d.high

    @property
    def chance_to_agree(self) -> float | None:
        """Probability that it agrees if both sides have one share, their mean weighted by samples; None where
        `agrees` is. Samples count as trials: where they have several references, or a number is a mean, it is higher.
        """
        ours, published = self.substring if self.scored_by == "substring" else self.exact, self.published
        if self.agrees is None or isinstance(ours, Unavailable) or isinstance(published, Unavailable):
            return None
        share = (ours.value * ours.n + published.value * published.n) / (ours.n + published.n)
        return agreement_probability(ours.n, published.n, round(share, 4))


def comparisons(data: Measured) -> list[Comparison]:
    """Every published cell of the study's models whose tasks and length are planned, in the order of the tables."""
    runs = [run for run in data.study.runs if run.published]
    if not runs:
        return []
    shares = _substring_shares(data.records, [run.name for run in runs])
    found = []
    for cell in cells():
        for run in runs:
            parts = list(_parts(data, cell)) if run.published == cell.model else []
            if parts:
                found.append(_compared(data, shares, cell, run, parts))
    return found


def published_estimate(cell: PublishedCell) -> Estimate | Unavailable:
    """The published share with its interval, or why there is none; of a mean of tasks, that of the same ones."""
    if cell.task == MEAN:
        own = [published_estimate(ruler_cells()[cell.model, task, cell.length]) for task in _same_ruler_tasks()]
        known = [one for one in own if isinstance(one, Estimate)]
        if len(known) < len(own):
            return next(one for one in own if isinstance(one, Unavailable))
        n = sum(one.n for one in known)
        part = proportion_part(1.0, sum(one.value * one.n for one in known), n)
        return Estimate(part.value, part.low, part.high, n, ".3f")
    if cell.share is None:
        return Unavailable("unreadable")
    if cell.samples is None:
        return Unavailable(f"{cell.percent:g} %, of fewer samples than stated")
    part = proportion_part(1.0, cell.share * cell.samples, cell.samples)
    return Estimate(part.value, part.low, part.high, cell.samples, ".3f")


def _parts(data: Measured, cell: PublishedCell) -> Iterator[tuple[str, Formats, float | None]]:
    """Task, format and depth of each part of ours that a cell is the mean of; none where one is not planned."""
    wanted: list[tuple[str, Formats | None]] = [(cell.task, None)]
    if cell.task == MEAN:
        wanted = [(task, None) for task in _same_ruler_tasks()]
    elif cell.task == NEEDLE:
        wanted = [(NEEDLE, _ours(format)) for format in cell.formats]
    parts = []
    for task, format in wanted:
        planned = [f for f in data.formats(task) if cell.length in data.lengths(task, f)]
        if format is None and len(planned) == 1:
            format = planned[0]
        if format not in planned:
            return
        parts.append((task, format, None if cell.depth is None else cell.depth / 100))
    yield from parts


def _same_ruler_tasks() -> list[str]:
    return [task for task in ruler_tasks() if task in same_tasks()]


def _ours(format: PublishedFormat) -> Formats:
    return Formats(OURS[format.haystack], OURS[format.key], OURS[format.value])


def _compared(
    data: Measured,
    shares: Shares,
    cell: PublishedCell,
    run: RunFacts,
    parts: Sequence[tuple[str, Formats, float | None]],
) -> Comparison:
    """The comparison of one cell with the mean of our parts."""
    slices = [
        _at_depth(data.slice(PanelKey(run.name, task, format), cell.length), depth) for task, format, depth in parts
    ]
    own: dict[Score, list[Estimate | Unavailable]] = {"exact": [_exact(one) for one in slices]}
    own["substring"] = [
        _substring(one, shares.get((PanelKey(run.name, task, format), cell.length), {}))
        for one, (task, format, _) in zip(slices, parts, strict=True)
    ]
    exact, substring = _mean(own["exact"]), _mean(own["substring"])
    scored_by: Score = "exact" if isinstance(substring, Unavailable) else "substring"
    ours, published = exact if scored_by == "exact" else substring, published_estimate(cell)
    difference = _difference(ours, published)
    return Comparison(cell, run.name, run.template, published, substring, exact, difference, scored_by)


def _at_depth(slice: Slice | Unavailable, depth: float | None) -> Slice | Unavailable:
    """The stratum around a published depth."""
    if depth is None or isinstance(slice, Unavailable):
        return slice
    n = len(slice.depths)
    centre = sorted(slice.depths)[min(int(depth * n), n - 1)]
    if abs(centre - depth) > NEAREST_STRATUM:
        return Unavailable(f"no stratum around depth {depth:g} ({n} strata)")
    return slice.at_depths([centre])


def _exact(slice: Slice | Unavailable) -> Estimate | Unavailable:
    if isinstance(slice, Unavailable):
        return slice
    mean = slice.estimate
    return Estimate(mean.value, mean.low, mean.high, mean.samples, ".3f")


def _substring(
    slice: Slice | Unavailable, shares: Mapping[tuple[float, int], tuple[float, int]]
) -> Estimate | Unavailable:
    """Mean of the substring scores of a slice; a sample's share of the references counts as so much of a trial."""
    if isinstance(slice, Unavailable):
        return slice
    places = [[(depth, int(index)) for index in slice.index] for depth in slice.depths]
    if any(place not in shares for row in places for place in row):
        return Unavailable("no continuation was recorded")
    hits, trials = (np.array([[shares[place][i] for place in row] for row in places]) for i in (0, 1))
    low, high = map(float, mean_of_cells(hits, trials))
    return Estimate(float(hits.sum() / trials.sum()), low, high, len(slice.index), ".3f")


def _mean(parts: Sequence[Estimate | Unavailable]) -> Estimate | Unavailable:
    """Mean of independent estimates with one weight each, or the first reason why there is none."""
    known = [part for part in parts if isinstance(part, Estimate)]
    for part in parts:
        if isinstance(part, Unavailable):
            return part
    if len(known) == 1:
        return known[0]
    terms = [Part(1 / len(known), one.value, one.low, one.high) for one in known]
    low, high = sum_bounds(terms)
    return Estimate(sum(one.value for one in known) / len(known), low, high, sum(one.n for one in known), ".3f")


def _difference(ours: Estimate | Unavailable, published: Estimate | Unavailable) -> Estimate | Unavailable:
    for side in (ours, published):
        if isinstance(side, Unavailable):
            return side
    assert isinstance(ours, Estimate)
    assert isinstance(published, Estimate)
    terms = [Part(sign, one.value, one.low, one.high) for sign, one in ((1.0, ours), (-1.0, published))]
    return Estimate(ours.value - published.value, *sum_bounds(terms), ours.n, "+.3f")


def _substring_shares(records: pa.Table, models: Sequence[str]) -> Shares:
    """Substring scores of the models' records, without the control conditions."""
    rows = (texts(records, "control") == "none") & np.isin(texts(records, "model"), models)
    rows &= ~np.isnan(numbers(records, "substring"))
    names = ["model", "task", "haystack", "key_format", "value_format", "length", "depth", "index"]
    table = records.filter(pa.array(rows)).select([*names, "substring"])
    sums = table.group_by(names).aggregate([("substring", "sum"), ("substring", "count")])
    found: dict[tuple[PanelKey, int], dict[tuple[float, int], tuple[float, int]]] = {}
    for row in sums.to_pylist():
        where = PanelKey(row["model"], row["task"], Formats(row["haystack"], row["key_format"], row["value_format"]))
        of_panel = found.setdefault((where, row["length"]), {})
        of_panel[round(row["depth"], 6), row["index"]] = row["substring_sum"], row["substring_count"]
    return found
