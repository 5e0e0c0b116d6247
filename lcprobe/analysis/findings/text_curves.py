"""Plain held-out text: loss by position, the size of the state, and remembrance, with intervals over windows of text.

A window is a cluster: every mean is over windows, every difference is paired inside a window, every interval
resamples windows. Loss past the training length is compared with the model's own last bin inside it. It rises where
that difference is above zero in a bin and in every longer one, each by its 95 % lower bound: one bin that is above
alone is no rise. That there is a rise, and that the state changes past the training length, are claims of the report
(`findings.families`), by Student's t over windows: of the last bin, and of the longest length against the training
length.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.families import Claim
from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.stats.bootstrap import bootstrap_mean
from lcprobe.analysis.stats.estimates import Estimate
from lcprobe.analysis.stats.student_t import two_sided_p
from lcprobe.errors import DataError, listed
from lcprobe.records import CONTEXT_SCHEMA


@dataclass(frozen=True)
class LossBin:
    """Mean loss after low .. high tokens, nats per token, and its difference from the base, paired by window."""

    low: int
    high: int
    loss: Estimate
    difference: Estimate | None


@dataclass(frozen=True, kw_only=True)
class TextClaim(Claim):
    """A change on plain text that may be a finding. change: its sign is the direction."""

    change: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TextCurves:
    """Curves of one model on plain text.

    base: the bin that ends where training did, None where no bin does. rise_from: tokens read at the first bin from
    which on the loss stays above the base; None without one. rise, state: the claims that it does, and that the root
    mean square of the state changes between the training length and the longest. state_rms, state_bytes: by the
    number of tokens read. remembrance: by (length, tokens kept). not_finite: predictions and values of the state that
    were not finite.
    """

    model: str
    context_length: int
    windows: int
    bins: tuple[LossBin, ...]
    base: LossBin | None
    rise_from: int | None
    rise: TextClaim
    state: TextClaim
    state_rms: Mapping[int, Estimate]
    state_bytes: Mapping[int, float]
    remembrance: Mapping[tuple[int, int], Estimate]
    not_finite: tuple[int, int]

    @property
    def rises(self) -> int | None:
        """Tokens read at the first bin of a lasting rise, where that is a finding."""
        return self.rise_from if self.rise.resolved else None

    @property
    def longest(self) -> int:
        """Number of tokens per window."""
        return max(self.state_bytes, default=0)

    @property
    def lengths(self) -> list[int]:
        """Lengths at which remembrance was measured."""
        return sorted({length for length, _ in self.remembrance})


def text_curves(study: StudyFacts, records: pa.Table | None) -> list[TextCurves]:
    """Curves of every model of the study that was measured.

    Raises DataError for a table that lacks columns of CONTEXT_SCHEMA.
    """
    if records is None or not len(records):
        return []
    missing = [name for name in CONTEXT_SCHEMA.names if name not in records.column_names]
    if missing:
        raise DataError(
            f"context records: columns {listed(missing, ', ')} are missing; allowed: tables of records.CONTEXT_SCHEMA"
        )
    columns = {name: numbers(records, name) for name in ("step", "window", "low", "high", "kept", "value", "count")}
    measure, model = texts(records, "measure"), texts(records, "model")
    curves = []
    for run in study.runs:
        own = model == run.name
        if own.any():
            own &= columns["step"] == columns["step"][own].max()
            part = {name: values[own] for name, values in columns.items()}
            curves.append(_curves(run.name, run.context_length, measure[own], part))
    return curves


def _curves(model: str, context_length: int, measure: np.ndarray, columns: dict[str, np.ndarray]) -> TextCurves:
    value = columns["value"]
    losses = _rows_by_key(measure == "loss", columns, "low", "high")
    base = next((key for key in losses if key[1] == context_length - 1), None)
    family, bins = f"plain text of {model}", []
    rise, state = TextClaim(family=family), TextClaim(family=family)
    for key, rows in losses.items():
        loss = bootstrap_mean(value[rows])
        if loss is None:
            continue
        difference = None
        if base is not None and key[0] >= context_length:
            own, reference = rows, losses[base]
            _, i, j = np.intersect1d(columns["window"][own], columns["window"][reference], return_indices=True)
            changes = value[own][i] - value[reference][j]
            difference, rise = bootstrap_mean(changes), _claim(family, changes)  # of the last bin, at the end
        bins.append(LossBin(key[0], key[1], loss, difference))
    not_finite = [int(np.nansum(value[measure == f"not_finite_{what}"])) for what in ("predictions", "state")]
    norms, sizes = (_rows_by_key(measure == name, columns, "high") for name in ("state_rms", "state_bytes"))
    trained, longest = norms.get((context_length,)), norms.get(max(norms, default=(0,)))
    if trained is not None and longest is not None and max(norms)[0] > context_length:
        _, i, j = np.intersect1d(columns["window"][longest], columns["window"][trained], return_indices=True)
        state = _claim(family, value[longest][i] - value[trained][j])
    distances = _rows_by_key(measure == "remembrance", columns, "high", "kept")
    return TextCurves(
        model=model,
        context_length=context_length,
        windows=len({int(w) for w in columns["window"]}),
        bins=tuple(bins),
        base=next((b for b in bins if (b.low, b.high) == base), None),
        rise_from=_first_of_lasting_rise(bins),
        rise=rise,
        state=state,
        state_rms={key[0]: mean for key, rows in norms.items() if (mean := bootstrap_mean(value[rows])) is not None},
        state_bytes={key[0]: float(value[rows[0]]) for key, rows in sizes.items()},
        remembrance={
            (key[0], key[1]): mean
            for key, rows in distances.items()
            if (mean := bootstrap_mean(value[rows])) is not None
        },
        not_finite=(not_finite[0], not_finite[1]),
    )


def _claim(family: str, changes: np.ndarray) -> TextClaim:
    """That the mean of (n_windows,) changes is not zero."""
    changes = changes[np.isfinite(changes)]
    n, mean = len(changes), float(changes.mean()) if len(changes) else 0.0
    if n < 2:
        return TextClaim(family=family)
    error = float(changes.std(ddof=1)) / math.sqrt(n)
    p = two_sided_p(mean / error, n - 1) if error > 0 else float(mean == 0)
    return TextClaim(family=family, p=p, change=mean)


def _rows_by_key(use: np.ndarray, columns: dict[str, np.ndarray], *keys: str) -> dict[tuple[int, ...], np.ndarray]:
    """Row numbers by the values of some columns, ascending, each sorted by window."""
    rows = np.nonzero(use)[0]
    rows = rows[np.lexsort((columns["window"][rows], *(columns[key][rows] for key in reversed(keys))))]
    grouped: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        grouped.setdefault(tuple(int(columns[key][row]) for key in keys), []).append(int(row))
    return {key: np.array(group) for key, group in grouped.items()}


def _first_of_lasting_rise(bins: Sequence[LossBin]) -> int | None:
    """Tokens read at the first bin from which on every bin is above the base."""
    first = None
    for one in reversed(bins):
        if one.difference is None:
            continue
        if not one.difference.low > 0:
            break
        first = one.low
    return first
