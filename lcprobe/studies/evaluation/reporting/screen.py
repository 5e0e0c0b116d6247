"""What `evaluate.py` says of a report on the terminal: scores by length, what was found, what limits it, where it is.

The selection is the report's (`analysis.report.answer`); here it only fits a terminal.
"""

from collections.abc import Iterator

from lcprobe.analysis.findings.extrapolation import SHARE_OF_BASE
from lcprobe.analysis.report.answer.findings import MAX_FINDINGS
from lcprobe.analysis.report.answer.headline import MAIN_TASKS, HeadlineRow, HeadlineTable, Score
from lcprobe.analysis.report.write import Report
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.studies.console import say, say_lines, width_of
from lcprobe.studies.text_table import GAP, Column, render, table_lines
from lcprobe.words import counted

MODEL, LEAST_LENGTHS, WITH_REACH, MOST_LENGTHS = 22, 10, 18, 34
"""Widest column of models; narrowest of effective lengths beside the scores, with reach, and widest."""
TRAINED = "*"
"""Marks the training length."""
LEGEND = (
    f"effective length: up to it a fall below {SHARE_OF_BASE:g} of the skill is excluded at the report's one "
    "error rate; ≥: the next length is not shown to fall; reach: half-way down, ≥: beyond the longest distance"
)


def say_report(report: Report) -> None:
    """Print score tables of the main tasks, at most MAX_FINDINGS findings, the limits, and the path of the page."""
    for table in report.headline[:MAIN_TASKS]:
        say("", *title_of(table))
        say_lines(table_text(table, width_of()))
    say(*(["", LEGEND] if report.headline else []))
    rest = len(report.headline) - MAIN_TASKS
    say(*([f"and {counted(rest, 'more task')} in the report"] if rest > 0 else []), "", *statements(report))
    say(f"report: {report.html}")


def statements(report: Report) -> Iterator[str]:
    """What was found, most important first, what was seen and is not resolved, and the limits by kind, each a
    statement on its own."""
    yield "findings:" if len(report.findings) > 1 else "finding:"
    yield from (f"- {finding}" for finding in report.findings[:MAX_FINDINGS])
    rest = len(report.findings) - MAX_FINDINGS
    if rest > 0:
        yield f"- and {counted(rest, 'more finding')} in the report"
    if report.seen:
        yield "not resolved:"
        yield from (f"- {text}" for text in report.seen)
    if report.limits:
        yield "limits:" if len(report.limits) > 1 else "limit:"
        yield from (f"- {limit.line}" for limit in report.limits)


def table_text(table: HeadlineTable, width: int | None) -> list[str]:
    """Models by lengths. On a terminal intervals stand below the scores where they do not fit beside them, effective
    lengths in what room is left, below the table where that is none."""
    models, lengths = _names(table), [_lengths(row) for row in table.rows]
    scores = [
        Column(_head(table, length), [_score(row.scores[i], table) for row in table.rows])
        for i, length in enumerate(table.lengths)
    ]
    effective = Column("effective length; reach", lengths)
    columns = [Column("model", models), *scores]
    one_line = sum(column.natural + len(GAP) for column in columns)
    if width is None or one_line + effective.natural <= width:
        return table_lines([*columns, effective], width)
    narrow = [Column(c.title, [cell.replace(" (", "\n").rstrip(")") for cell in c.cells]) for c in scores]
    widths = [max(len(c.title), *(len(part) for cell in c.cells for part in cell.split("\n"))) for c in narrow]
    first = min(MODEL, max(map(len, [*models, "model"])))
    room = width - first - sum(w + len(GAP) for w in widths) - len(GAP)
    if room >= LEAST_LENGTHS:
        if room < WITH_REACH:
            effective = Column("effective length", [_effective(row) for row in table.rows])
        shown = min(room, MOST_LENGTHS, effective.natural)
        return render([Column("model", models), *narrow, effective], [first, *widths, shown])
    ends = table_lines([Column("model", models), Column("effective length; reach", lengths)], width)
    if room + LEAST_LENGTHS >= 0 and first + sum(w + len(GAP) for w in widths) <= width:
        return [*render([Column("model", models), *narrow], [first, *widths]), "", *ends]
    return [*table_lines(columns, width), "", *ends]


def title_of(table: HeadlineTable) -> list[str]:
    """`multikey, corpus/words/numbers`, and what the numbers are."""
    chance = "" if table.chance is None else f", chance {_short(table.chance)}"
    formats = "" if table.n_formats == 1 else f" (the first of {table.n_formats} formats)"
    measure = f"exact match (95 % interval) over all depths{chance}{_trials(table)}; {TRAINED} training length"
    return [f"{table.task}, {table.format}{formats}", measure]


def _trials(table: HeadlineTable) -> str:
    """`, n = 300 of 3 seeds`; where models have different numbers of seeds, of each of these; empty where scores have
    different numbers of trials."""
    seeds = sorted({row.seeds for row in table.rows})
    if len(seeds) == 1:
        of = f" of {counted(seeds[0], 'seed')}" if seeds != [1] else ""
        return "" if table.n is None else f", n = {table.n:,}{of}"
    scores = ((row.seeds, score.estimate) for row in table.rows for score in row.scores)
    each = {e.n // n for n, e in scores if isinstance(e, Proportion)}
    return f", n = {each.pop():,} of each of {seeds[0]} to {seeds[-1]} seeds" if len(each) == 1 else ""


def _head(table: HeadlineTable, length: int) -> str:
    return f"{length:,}{TRAINED if length == table.context_length else ''}"


def _names(table: HeadlineTable) -> list[str]:
    """The models, with their numbers of seeds where these differ or one of them is there more than once."""
    if len({row.seeds for row in table.rows}) == 1 and not any(row.repeats for row in table.rows):
        return [row.model for row in table.rows]
    return [f"{row.model} ({_seeds(row)})" for row in table.rows]


def _seeds(row: HeadlineRow) -> str:
    """`2 seeds`, `1 seed, twice`, `2 seeds of 3 runs`."""
    text = counted(row.seeds, "seed")
    if not row.repeats:
        return text
    return f"{text}, twice" if row.seeds == row.repeats == 1 else f"{text} of {row.seeds + row.repeats} runs"


def _score(score: Score, table: HeadlineTable) -> str:
    """`.77 (.74–.80)`."""
    if score.estimate is None:
        return ""
    if not isinstance(score.estimate, Proportion):
        return "n/a"
    own = TRAINED if score.trained and table.context_length is None else ""
    e = score.estimate
    return f"{_short(e.value)}{own} ({_short(e.low)}–{_short(e.high)})"


def _lengths(row: HeadlineRow) -> str:
    return "; ".join(part for part in (_effective(row), row.reach) if part and part != "n/a") or "n/a"


def _effective(row: HeadlineRow) -> str:
    return row.effective + (f" ({row.multiple})" if row.multiple else "")


def _short(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
