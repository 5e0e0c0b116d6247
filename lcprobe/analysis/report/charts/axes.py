"""Axes of the figures: their domains are written down, so that they stay where they are when a reader hides a model,
and one value has an axis too, with a margin on both sides."""

from collections.abc import Sequence
from math import ceil, floor, isfinite, log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair as alt


def tokens_axis(
    field: str,
    title: str,
    values: Sequence[float],
    ticks: Sequence[float] = (),
    *,
    most: int = 8,
    labels: bool = True,
) -> "alt.X":
    """A log2 axis of tokens around all `values`, marked at `ticks` or at about `most` powers of two. labels: False
    for a panel above others with the same axis.

    One value has an axis too: a margin is left on both sides.
    """
    import altair as alt

    scale, axis = _tokens(values, ticks, most, labels)
    return alt.X(f"{field}:Q", title=title if labels else None, scale=scale, axis=axis)


def tokens_up_axis(field: str, title: str, values: Sequence[float], ticks: Sequence[float] = ()) -> "alt.Y":
    """A y axis such as `tokens_axis`, with about six ticks."""
    import altair as alt

    scale, axis = _tokens(values, ticks, 6)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis)


def number_axis(field: str, title: str, values: Sequence[float], *, log: bool = False) -> "alt.Y":
    """The y axis of other numbers, around all `values`. log: in base 10 where they span an order of magnitude; then
    it has a place for positive ones alone.

    The domain is written down, so that it stays where it is when a reader hides a model.
    """
    import altair as alt

    known = [float(value) for value in values if isfinite(value) and (value > 0 or not log)] or [1.0]
    low, high = min(known), max(known)
    if log and high > 10 * low:
        scale = alt.Scale(type="log", base=10, nice=False, domain=[low / 1.1, high * 1.1])
        return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".4~g", tickCount=5))
    margin = 0.05 * (high - low or abs(high) or 1)
    scale = alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=",.4~r", tickCount=6))


def amount_axis(field: str, title: str, values: Sequence[float]) -> "alt.X":
    """A linear x axis from 0 to the largest value: tokens trained on, say."""
    import altair as alt

    scale = alt.Scale(domain=[0, max(values, default=1.0) or 1.0], nice=False)
    return alt.X(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".3~s", tickCount=6))


def multiple_axis(field: str, title: str, values: Sequence[float], *, most: int = 10) -> "alt.X":
    """A log2 axis of length / training length, marked at about `most` powers of two: `1/2x`, `1x`, `2x`."""
    import altair as alt

    low, high = min(values, default=1.0), max(values, default=1.0)
    powers = range(floor(log2(low) + 1e-6), ceil(log2(high) - 1e-6) + 1)
    ticks = [2.0**p for p in powers][:: max(1, ceil(len(powers) / most))]
    label = "datum.value >= 1 ? format(datum.value, 'd') + 'x' : '1/' + format(1 / datum.value, 'd') + 'x'"
    scale = alt.Scale(type="log", base=2, nice=False, domain=[low / 1.15, high * 1.15])
    return alt.X(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(values=ticks, labelExpr=label))


def share_axis(field: str = "value", title: str = "exact match") -> "alt.Y":
    """The y axis of proportions: always 0 to 1."""
    import altair as alt

    scale = alt.Scale(domain=[-0.02, 1.02], nice=False)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2f"))


def _tokens(
    values: Sequence[float], ticks: Sequence[float], n_ticks: int, labels: bool = True
) -> "tuple[alt.Scale, alt.Axis]":
    """Scale and axis of tokens."""
    import altair as alt

    low, high = max(min(values, default=1.0), 1.0), max(max(values, default=2.0), 1.0)
    if not ticks:
        powers = range(ceil(log2(low) - 1e-9), floor(log2(high) + 1e-9) + 1)
        ticks = [2.0**p for p in powers][:: max(1, ceil(len(powers) / n_ticks))]
        ticks = ticks if len(ticks) > 1 else sorted({round(low), round(high)})
    scale = alt.Scale(type="log", base=2, nice=False, domain=[low / 1.15, high * 1.15])
    return scale, alt.Axis(values=[*ticks], format=",.0f", grid=True, labels=labels, ticks=labels)
