"""How many records there are, and how many are right: by model, task and length, column by column."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lcprobe.studies.evaluation.records.query import STUDY

COLUMNS = ("model", "task", "control", "template", "scoring", "suite", "task_code", "length", "status", "exact")
"""What is read for the counts."""
KEYS = ("model", "task", "length")
APART = ("control", "template", "scoring", "suite", "task_code")
"""Columns in which records are counted apart, and that are shown, where they have several values."""


def count_rows(records: pa.Table) -> list[dict[str, Any]]:
    """Rows of the columns that tell groups apart, and records, failed (without a score), right, accuracy (of those
    with a score; None without any). records: with COLUMNS, and perhaps STUDY."""
    apart = [name for name in APART if len(pc.unique(records[name])) > 1]
    keys = [*([STUDY] if STUDY in records.column_names else []), "model", "task", *apart, "length"]
    scored = pc.equal(records["status"], "ok")
    right = pc.and_(scored, pc.fill_null(records["exact"], False))
    table = records.select(keys).append_column("scored", scored.cast(pa.int64()))
    table = table.append_column("right", right.cast(pa.int64()))
    counted = table.group_by(keys).aggregate([([], "count_all"), ("scored", "sum"), ("right", "sum")])
    rows = []
    for row in counted.sort_by([(name, "ascending") for name in keys]).to_pylist():
        n, scored_n, right_n = row["count_all"], row["scored_sum"], row["right_sum"]
        accuracy = right_n / scored_n if scored_n else None
        counts = {"records": n, "failed": n - scored_n, "right": right_n, "accuracy": accuracy}
        rows.append({name: row[name] for name in keys} | counts)
    return rows
