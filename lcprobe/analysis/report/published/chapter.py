"""The chapter "Published and ours": how many cells agree, every cell with its difference, why cells are marked, and
the published claim of "lost in the middle" tested again on the published counts. Cells of tasks that only share a
name with the study's stand apart and are not counted."""

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
    published_means,
    ruler_tasks,
    same_tasks,
)
from lcprobe.analysis.report.blocks import Section, Table, value_text
from lcprobe.analysis.report.wording import signed, span_text
from lcprobe.analysis.stats.binomial import likely_counts
from lcprobe.analysis.stats.estimates import Estimate

TITLES = {
    "1": "Table 1: mean of 13 RULER tasks",
    "2": "Table 2: needle by depth, at the training length",
    "3": "Table 3: needle by depth, at twice the training length",
    "4": "Table 4: needle by format and depth",
    "7-19": "Tables 7 to 19: RULER tasks",
}
OTHER = "another task"
"""In place of a verdict, where ours of the same name asks something else."""
SAYS_NOTHING = ("", "any", NEEDLE, MEAN, "n/a: no continuation was recorded")
"""A column with one of these in every row is left out: title and text of the chapter say it."""
COUNTED = (
    "Left out of this count: Table 1 (means of Tables 7 to 19), the matched models' depths 0, 50 and 100 in Tables 2 "
    "and 3 (means of Table 4), and other tasks of the same name."
)
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
    same = [c for c in found if c.same_task]
    by_table = [_cell_table(table, [c for c in same if c.cell.table == table]) for table in TITLES]
    others = _other_table([c for c in found if not c.same_task])
    tables = [*by_table, others, _marks_table(found), _means_table(found), retest_table(), _claims_table()]
    tables.append(_task_table(found))
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
            "same_task": c.same_task,
            "mean_of_others": c.cell.derived,
            "agrees": c.agrees,
            "marks": "; ".join(mark.kind for mark in c.cell.marks),
        }
        for c in results.published
    ]


def counts_text(found: Sequence[Comparison]) -> str:
    """`41 of 81 cells agree within the 95 % interval ..., and how many would if nothing differed: each with its own
    probability, independent of the others."""
    chances = [c.chance_to_agree for c in found if c.chance_to_agree is not None]
    judged = [c.difference for c in found if isinstance(c.difference, Estimate) and c.agrees is not None]
    agree = sum(c.agrees is True for c in found)
    if not judged:
        return "no cell can be compared"
    low, high = likely_counts(chances)
    above, half_width = sum(d.low > 0 for d in judged), median((d.high - d.low) / 2 for d in judged)
    return (
        f"{agree} of {len(judged)} cells agree within the 95 % interval of the difference (±{half_width:.2f} in the "
        f"median), ours is higher in {above} and lower in {len(judged) - agree - above}; if nothing differed, "
        f"{f'{low} to {high}' if low < high else low} would agree"
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
        f"All tables: {_counts(_independent(found))}. {COUNTED}",
        "If nothing differed: each cell agrees with its own probability, both sides drawn from their common share, "
        "cells taken as independent. It is nearly 1 where that share is near 0 or 1; several references per sample "
        "and means count as single trials, so a few more would agree.",
    ]
    if any(not c.same_task for c in found):
        text.append(
            "Tasks that share no more than their name with the study's stand apart as another task. RULER's own "
            "prompts are its tasks: evaluate.py MODEL --frozen FILE scores them by the same rule into the study's "
            "folder frozen/, and those numbers are not in this chapter."
        )
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
    if table == "1":
        same = [task for task in ruler_tasks() if task in same_tasks()]
        caption += f" Published and ours: the mean of the {len(same)} tasks that are the same in both"
        caption += f" ({', '.join(same)}), that of the published ones from Tables 7 to 19; printed: of all 13."
    caption += " Marks: why a published cell is not what it seems, explained below; n/a: the reason."
    rows = [_row(c) for c in found]
    return _table_of(TITLES[table], caption, rows)


def _other_table(found: Sequence[Comparison]) -> Table:
    caption = "No verdict: ours of the same name asks something else (see the last table). Marks: as above."
    return _table_of("Tables 7 to 19: tasks that are not the same", caption, [_row(c) for c in found])


def _table_of(title: str, caption: str, rows: Sequence[dict[str, str]]) -> Table:
    """A table without the columns that say nothing."""
    columns = [name for name in (rows or [{}])[0] if any(row[name] not in SAYS_NOTHING for row in rows)]
    return Table(title, caption, columns, [[row[name] for name in columns] for row in rows])


def _independent(found: Sequence[Comparison]) -> list[Comparison]:
    return [c for c in found if c.same_task and not c.cell.derived]


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
        "printed": f"{c.cell.percent:g} %" if c.cell.task == MEAN else "",
        "published": _share(c, c.published),
        "difference": f"{signed(d.value)} ({span_text(d.low, d.high)})" if isinstance(d, Estimate) else "n/a",
        "agrees": {True: "yes", False: "no", None: "n/a"}[c.agrees] if c.same_task else OTHER,
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


def _means_table(found: Sequence[Comparison]) -> Table:
    """The printed means of rows that are not the means of their rows."""
    here = {(c.cell.table, c.cell.model) for c in found}
    rows = [
        [table, model, f"{percent:g} %", note]
        for (table, model), (percent, note) in published_means().items()
        if note and (table, model) in here
    ]
    caption = 'The column "avg" of Tables 1 to 3, where it is something else; nothing here is compared with it.'
    return Table("Printed means that are not those of their rows", caption, ["table", "model", "mean", "note"], rows)


def _claims_table() -> Table:
    columns = ["claim", "what the published numbers support"]
    return Table(
        "What the study claims", "Read again from the published tables.", columns, list(map(list, claims().items()))
    )


def _task_table(found: Sequence[Comparison]) -> Table:
    tasks = {c.cell.task for c in found}
    rows = [
        [task, "the same" if task in same_tasks() else OTHER, text]
        for task, text in differences_of_tasks().items()
        if task in tasks
    ]
    caption = "What ours asks differently; --frozen scores RULER's own prompts where nothing may differ."
    return Table("The tasks compared", caption, ["task", "counts as", "difference"], rows)


def _triple_row(triple: Triple) -> list[str]:
    counts = [f"{count}/{SAMPLES}" for count in triple.counts]
    p = [("< 0.001" if p < 0.001 else f"{p:.3f}") for p in (triple.p_start, triple.p_end)]
    return [triple.model, value_text(triple.length), str(triple.format), *counts, *p, triple.pattern]


def _numbers(prefix: str, value: Estimate | Unavailable) -> dict[str, Value]:
    names = (prefix, f"{prefix}_low", f"{prefix}_high", f"{prefix}_n")
    if isinstance(value, Unavailable):
        return dict.fromkeys(names, None)
    return dict(zip(names, (value.value, value.low, value.high, value.n), strict=True))
