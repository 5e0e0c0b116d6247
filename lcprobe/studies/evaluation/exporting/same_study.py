"""Whether outputs of another harness belong into a study: its cells and its samples are the exported ones, and the
model is none that was probed here. Reads, and writes nothing."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.errors import ConfigError, DataError
from lcprobe.files import digest_json
from lcprobe.probing.external.export import Sample
from lcprobe.probing.store import Store
from lcprobe.studies.evaluation.report_inputs import ReportInputs

EXTERNAL = "external"
"""`checkpoint` of a model of which nothing is known but its outputs."""
CELL = (
    "task", "haystack", "key_format", "value_format", "control", "length", "strata", "depth", "index", "query",
    "template", "equal_length",
)  # fmt: skip
"""Columns under which the report compares models question by question."""


def require_not_probed(store: Store, old: ReportInputs | None, model: str) -> None:
    """Raises ConfigError for the name of a model that was probed here, which outputs would replace in the report."""
    known = {unit.checkpoint for unit in store.summaries().values() if unit.model == model}
    known |= {run.checkpoint for run in old.study.runs if run.name == model} if old is not None else set()
    if known - {EXTERNAL}:
        raise ConfigError("--model", model, "another name: that of a model probed here is its own")


def require_same_grid(out: Path, old: ReportInputs, cells: Iterable[Any]) -> None:
    """Raises DataError where the report of a study's folder is about other cells."""
    if sorted(map(digest_json, old.study.expected_cells)) != sorted(map(digest_json, cells)):
        raise DataError(f"{out}: its report is about another grid; allowed: another study.name")


def require_same_samples(out: Path, folder: Path, old: pa.Table, samples: Sequence[Sample], model: str) -> None:
    """Raises DataError where other models of a study answered other questions in the same cells: those with the same
    tokenizer must have the same tokens, and where equal_length is text, others the same characters. old: records of
    its report. folder: of the export."""
    exported = {tuple(sample.factors[name] for name in CELL): sample for sample in samples}
    columns = [*CELL, "model", "tokenizer", "episode", "text"]
    paired, other = 0, 0
    for row in old.select(columns).group_by(columns).aggregate([]).to_pylist():
        sample = exported.get(tuple(row[name] for name in CELL))
        if sample is None or row["model"] == model:
            continue
        same_tokenizer = row["tokenizer"] == sample.factors["tokenizer"]
        if same_tokenizer or row["equal_length"] == "text":
            column = "episode" if same_tokenizer else "text"
            paired, other = paired + 1, other + (row[column] != sample.factors[column])
    if other:
        raise DataError(
            f"{out}: its records are of other samples than {folder} ({other:,} of {paired:,} in the same cells); "
            "allowed: an export with the study's own data and version, or another study.name"
        )
