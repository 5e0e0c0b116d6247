"""Tables of the page about scores: all cells, and a sample of wrong answers."""

import numpy as np
import pyarrow as pa

from lcprobe.analysis.findings.cells import Cell
from lcprobe.analysis.findings.load_records import numbers, texts
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.findings.tokenizers import several_tokenizers
from lcprobe.analysis.report.blocks import Table, decimal_text, panel_columns, value_text
from lcprobe.analysis.report.wording import AT_THE_ENDS, at_an_end, stratum_text
from lcprobe.errors import shown
from lcprobe.seeds import Stream

WRONG_ANSWERS = 20


def cell_table(results: Results) -> Table:
    """Every cell, controls included."""
    columns = ["model", "task", "format", "control", "length", "depth", "k/n", "accuracy", "interval", "failed"]
    columns += [
        "chance",
        "skill",
        "interval of skill",
        "first token",
        "token accuracy",
        "log-lik. per token",
        "mean rank",
    ]
    caption = "k of n queries answered exactly; failed queries do not count as trials. "
    caption += "Chance: stated, of choosing without the key. Skill: (accuracy − chance) / (1 − chance). "
    caption += "Rank: of the correct value among those of the context."
    caption += f" * {AT_THE_ENDS}" if any(at_an_end(c) for c in results.cells) else ""
    rows = [_cell_row(c) for c in results.cells]
    if several_tokenizers(results.study):
        columns += ["own tokens", "characters"]
        counted = [(c.means["episode_tokens"], c.means["characters"]) for c in results.cells]
        rows = [[*row, *(value_text(x, 5) for x in own)] for row, own in zip(rows, counted, strict=True)]
    return Table("All cells", caption, columns, rows, "cells.csv")


def wrong_answers(results: Results) -> Table:
    """A random sample of wrong answers, the same for the same records."""
    records = results.data.records
    status, control = texts(records, "status"), texts(records, "control")
    wrong = np.nonzero((status == "ok") & (control == "none") & (numbers(records, "exact") == 0))[0]
    drawn = np.sort(Stream("wrong answers").permutation(len(wrong))[:WRONG_ANSWERS]) if len(wrong) else wrong
    sample = records.take(pa.array(wrong[drawn], pa.int64())).to_pylist()
    rows = [
        [
            r["model"],
            r["task"],
            f"{r['haystack']}/{r['key_format']}/{r['value_format']}",
            value_text(r["length"]),
            stratum_text(r["depth"], r["strata"]),
            shown(r["answer"]),
            shown(r["prediction"]),
        ]
        for r in sample
    ]
    columns = ["model", "task", "format", "length", "depth", "correct answer", "prediction"]
    return Table("Wrong answers", f"{len(rows)} of {len(wrong)} wrong answers.", columns, rows)


def _cell_row(cell: Cell) -> list[str]:
    accuracy = ["n/a", "", ""]
    if cell.accuracy is not None and cell.low is not None and cell.high is not None:
        accuracy = [f"{cell.k}/{cell.n}", f"{cell.accuracy:.2f}", f"{cell.low:.2f}–{cell.high:.2f}"]
    place = [
        *panel_columns(cell.where),
        cell.where.control,
        value_text(cell.length),
        stratum_text(cell.depth, cell.strata),
    ]
    chance = decimal_text(cell.means["chance"])
    chance = f"{chance} *" if at_an_end(cell) else chance
    low, high = cell.skill_bounds
    skill = ["", ""]
    if cell.skill is not None:
        skill = [f"{cell.skill:.2f}", f"{decimal_text(low)}–{decimal_text(high)}"]
    names = ("first_token", "token_accuracy", "log_likelihood_per_token", "rank")
    means = [decimal_text(cell.means[name]) for name in names]
    return [*place, *accuracy, value_text(cell.n_failed), chance, *skill, *means]
