"""The chapter "Published and ours": how many cells agree, every cell with its difference, why cells are marked, and
the published claim of "lost in the middle" tested again on the published counts."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.findings.published_cells import Comparison
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import Value
from lcprobe.analysis.published.retest import PATTERNS, Triple, retest
from lcprobe.analysis.published.tables import (
    MEAN,
    NEEDLE,
    SAMPLES,
    SOURCE,
    cells,
    claims,
    differences_of_tasks,
    models,
)
from lcprobe.analysis.report.blocks import Section, Table, value_text
from lcprobe.analysis.report.wording import signed, span_text
from lcprobe.analysis.stats.binomial import binomial_range
from lcprobe.analysis.stats.estimates import Estimate

TITLES = {
    "1": "Table 1: mean of 13 RULER tasks",
    "2": "Table 2: needle by depth, at the training length",
    "3": "Table 3: needle by depth, at twice the training length",
    "4": "Table 4: needle by format and depth",
    "7-19": "Tables 7 to 19: RULER tasks",
}
SAYS_NOTHING = ("", "any", NEEDLE, MEAN, "n/a: no continuation was recorded")
"""A column with one of these in every row is left out: title and text of the chapter say it."""
CALLED = {
    "below both ends": "middle significantly below both ends (lost in the middle)",
    "below the end": "middle significantly below the end only (recency)",
    "below the start": "middle significantly below the start only (primacy)",
    "below neither": "middle significantly below neither end",
}


def published_section(results: Results) -> Section | None:
    """The chapter; None for a study without a model of the published one."""
    found = results.published
    if not found:
        return None
    by_table = [_cell_table(table, [c for c in found if c.cell.table == table]) for table in TITLES]
    tables = [*by_table, _marks_table(found), retest_table(), _claims_table(), _task_table(found)]
    return Section("published", "Published and ours", _text(found), tables=[t for t in tables if t.rows])


def published_rows(results: Results) -> list[dict[str, Value]]:
    """Every comparison as a row of published.csv."""
    return [
        {
            "table": c.cell.table,
            "published_model": c.cell.model,
            "model": c.model,
            "template": c.template,
            "template_as_published": c.as_published,
            "task": c.cell.task,
            "format": _formats(c),
            "length": c.cell.length,
            "depth": c.cell.depth,
            "published_percent": c.cell.percent,
            **_numbers("published", c.published),
            **_numbers("substring", c.substring),
            **_numbers("exact", c.exact),
            **_numbers("difference", c.difference),
            "scored_by": c.scored_by,
            "agrees": c.agrees,
            "marks": "; ".join(mark.kind for mark in c.cell.marks),
        }
        for c in results.published
    ]


def counts_text(found: Sequence[Comparison]) -> str:
    """`41 of 81 cells agree within the 95 % interval ..., and how many would if nothing differed."""
    judged = [c.difference for c in found if isinstance(c.difference, Estimate)]
    agree = sum(c.agrees is True for c in found)
    if not judged:
        return "no cell can be compared"
    low, high = (round(share * len(judged)) for share in binomial_range(len(judged), 0.95))
    above, half_width = sum(d.low > 0 for d in judged), median((d.high - d.low) / 2 for d in judged)
    return (
        f"{agree} of {len(judged)} cells agree within the 95 % interval of the difference (±{half_width:.2f} in the "
        f"median), ours is higher in {above} and lower in {len(judged) - agree - above}; if nothing differed, {low} "
        f"to {high} would agree"
    )


def _counts(found: Sequence[Comparison]) -> str:
    """The counts with the study's prompts, and with others."""
    same, others = ([c for c in found if c.as_published == wanted] for wanted in (True, False))
    text = [counts_text(same)] if same else []
    return "; ".join([*text, f"with other prompts {counts_text(others)}"] if others else text)


def retest_table() -> Table:
    """The re-test of Table 4, computed from the published percentages alone."""
    triples = retest()
    counts = Counter(triple.pattern for triple in triples)
    caption = (
        f"Counts rebuilt from n = {SAMPLES}; two-proportion z test of the middle against either end, Holm over all "
    )
    caption += f"{2 * len(triples)} tests. Of {len(triples)} triples of model, length and format with any success: "
    caption += "; ".join(f"{counts[pattern]} {CALLED[pattern]}" for pattern in PATTERNS) + "."
    columns = ["model", "length", "format", "start", "middle", "end", "p against start", "p against end", "middle is"]
    title = "Published Table 4, tested again: lost in the middle"
    return Table(title, caption, columns, [_triple_row(triple) for triple in triples])


def _text(found: Sequence[Comparison]) -> list[str]:
    exact = sum(c.scored_by == "exact" for c in found)
    text = [
        f"The scores of {SOURCE} beside ours, for checkpoints, tasks and lengths that both have. Published: share of "
        f"{SAMPLES} samples per cell, one seed, greedy, with Wilson's interval computed here (none was published). "
        "Substring: our answers by the study's score, references anywhere in a greedy continuation. Difference: the "
        "compared score of ours less the published one, with Newcombe's interval for different samples. n: our "
        "samples.",
        f"All tables: {_counts(found)}.",
    ]
    if exact:
        text.append(
            f"{exact} of {len(found)} cells are compared by exact match, which is stricter than the published score: "
            "records without a continuation (probe.continuation: ruler records one)."
        )
    lengths = {c.cell.model: models()[c.cell.model] for c in found}
    stated = "; ".join(f"{m.name} {m.context_length:,} ({m.context_length_from})" for m in lengths.values())
    text.append(f"Training lengths that the published tables imply: {stated}.")
    wrapped = ", ".join(f"{m.name} {m.wrapper}" for m in lengths.values())
    text.append(
        f"Around the prompts, in the study's scripts: {wrapped}. The column prompt names what is around ours where "
        "that is something else (probe.templates: paper has the study's)."
    )
    return text


def _cell_table(table: str, found: Sequence[Comparison]) -> Table:
    caption = f"{_counts(found)}." if found else ""
    caption += " Marks: why a published cell is not what it seems, explained below; n/a: the reason."
    rows = [_row(c) for c in found]
    columns = [name for name in (rows or [{}])[0] if any(row[name] not in SAYS_NOTHING for row in rows)]
    return Table(TITLES[table], caption, columns, [[row[name] for name in columns] for row in rows])


def _row(c: Comparison) -> dict[str, str]:
    d = c.difference
    return {
        "model": c.cell.model,
        "ours": c.model,
        "prompt": "" if c.as_published else c.template,
        "task": c.cell.task,
        "format": "mean of three" if len(c.cell.formats) > 1 else _formats(c),
        "length": value_text(c.cell.length),
        "depth": "any" if c.cell.depth is None else f"{c.cell.depth} %",
        "published": _share(c, c.published),
        "difference": f"{signed(d.value)} ({span_text(d.low, d.high)})" if isinstance(d, Estimate) else "n/a",
        "agrees": {True: "yes", False: "no", None: "n/a"}[c.agrees],
        "substring": _estimate(c.substring),
        "exact match": _estimate(c.exact),
        "n": str(d.n) if isinstance(d, Estimate) else "",
        "marks": ", ".join(dict.fromkeys(mark.kind for mark in c.cell.marks)),
    }


def _formats(c: Comparison) -> str:
    return ", ".join(map(str, c.cell.formats))


def _share(c: Comparison, published: Estimate | Unavailable) -> str:
    """`0.62 (155/250, 0.56–0.68)`; without k where a sample has several references or the number is a mean."""
    if isinstance(published, Unavailable):
        return f"n/a: {published}"
    one = c.cell.references == c.cell.parts == 1
    k = f"{round(published.value * published.n)}/{published.n}, " if one else f"n = {published.n}, "
    return f"{published.value:.2f} ({k}{published.low:.2f}–{published.high:.2f})"


def _estimate(value: Estimate | Unavailable) -> str:
    if isinstance(value, Unavailable):
        return f"n/a: {value}"
    return f"{value.value:.2f} ({value.low:.2f}–{value.high:.2f})"


def _marks_table(found: Sequence[Comparison]) -> Table:
    """Every mark of the published tables: cells with it in all, cells with it here, and why."""
    here = Counter((m.kind, m.reason) for cell in {c.cell for c in found} for m in cell.marks)
    everywhere = Counter((m.kind, m.reason) for cell in cells() for m in cell.marks)
    rows = [[kind, str(n), str(here[kind, reason]), reason] for (kind, reason), n in everywhere.items()]
    caption = (
        "Published cells that are not what they seem: how many there are, how many of them stand above, and why."
    )
    return Table("Marked cells", caption, ["mark", "cells", "shown", "reason"], rows)


def _claims_table() -> Table:
    columns = ["claim", "what the published numbers support"]
    return Table(
        "What the study claims", "Read again from the published tables.", columns, list(map(list, claims().items()))
    )


def _task_table(found: Sequence[Comparison]) -> Table:
    tasks = {c.cell.task for c in found}
    rows = [[task, text] for task, text in differences_of_tasks().items() if task in tasks or MEAN in tasks]
    caption = "What ours asks differently; --frozen scores RULER's own prompts where nothing may differ."
    return Table("The tasks compared", caption, ["task", "difference"], rows)


def _triple_row(triple: Triple) -> list[str]:
    counts = [f"{count}/{SAMPLES}" for count in triple.counts]
    p = [("< 0.001" if p < 0.001 else f"{p:.3f}") for p in (triple.p_start, triple.p_end)]
    return [triple.model, value_text(triple.length), str(triple.format), *counts, *p, triple.pattern]


def _numbers(prefix: str, value: Estimate | Unavailable) -> dict[str, Value]:
    names = (prefix, f"{prefix}_low", f"{prefix}_high", f"{prefix}_n")
    if isinstance(value, Unavailable):
        return dict.fromkeys(names, None)
    return dict(zip(names, (value.value, value.low, value.high, value.n), strict=True))
