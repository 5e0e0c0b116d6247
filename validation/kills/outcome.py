"""What a study comes to: its final weights and moments, its rows, its records, and what W&B would be sent."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from lcprobe.studies.tracking import read_metrics
from lcprobe.studies.tracking.log_file import read_log, records_in
from lcprobe.studies.tracking.sync import plan_of, tracked_in
from lcprobe.studies.tracking.wandb_tracker import saved_run
from lcprobe.training.checkpoint import latest, load_progress
from lcprobe.training.tensors.reading import Tensors

TIMED = "train/tokens_per_second"
"""The only metric that is a time."""
NOWHERE = "https://wandb.example.org"
"""A server that has been sent nothing yet."""
LIMIT = 1e-5
"""Where the work is divided otherwise: of weights and moments, and, relative to their size, of metrics."""
Row = Mapping[str, float]


@dataclass(frozen=True)
class RunOutcome:
    """Of one run. tensors: weights and moments of the last checkpoint, by stem and name; rows: of metrics.csv;
    history: of W&B, of the folder that is sent; summary: names of W&B's summary and metrics, and exit_code, there."""

    step: int
    data_digest: str
    tensors: Mapping[str, torch.Tensor]
    rows: Sequence[Row]
    history: Sequence[Row]
    summary: frozenset[str]
    exit_code: int | None

    @property
    def digest(self) -> str:
        """SHA-256 of all weights and moments."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Outcome:
    """Of a study. records: every record of its probe, sorted."""

    runs: Mapping[str, RunOutcome]
    records: list[str]


def outcome_of(study: Path) -> Outcome:
    """Read it from a study's folder."""
    sent = {one.id: one.log for one in plan_of(tracked_in(study), NOWHERE).send}
    runs = {}
    for folder in sorted(path.parent for path in study.glob("*/metrics.csv")):
        newest = latest(folder / "checkpoints")
        assert newest is not None, folder
        tensors = {}
        for stem in ("model", "optimizer"):
            found = Tensors(newest, stem)
            tensors |= {f"{stem} {name}": found.read_whole(name) for name in found.entries}
        progress = load_progress(newest)
        rows = [_untimed(row) for row in read_metrics(folder / "metrics.csv")]
        tracked = saved_run(folder)
        log = None if tracked is None else sent.get(tracked.id)
        logged = None if log is None else read_log(log)
        runs[folder.name] = RunOutcome(
            progress.step,
            progress.digest,
            tensors,
            rows,
            [] if log is None else _history(log),
            frozenset() if logged is None else logged.names,
            None if logged is None else logged.exit_code,
        )
    return Outcome(runs, records_of(study))


def records_of(study: Path) -> list[str]:
    """Every record of a study, sorted."""
    tables = [pq.read_table(path) for path in sorted((study / "records").glob("*.parquet"))]
    return sorted(str(sorted(row.items())) for table in tables for row in table.to_pylist())


def _history(log: Path) -> list[Row]:
    """The rows of training and of evaluations in a W&B log, as the client wrote them: none is put together, none left
    out."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for piece in records_in(log.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(piece)  # pyright: ignore[reportAttributeAccessIssue]  generated code
        if record.HasField("history"):
            row = {item.key or ".".join(item.nested_key): _value(item) for item in record.history.item}
            if "train/loss" in row or "eval/length" in row:
                rows.append(_untimed(row))
    return rows


def _untimed(row: Mapping[str, Any]) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("_") and name != TIMED}


def _value(item: Any) -> Any:
    kind = item.WhichOneof("value")
    return getattr(item, kind) if kind in ("integer", "number") else json.loads(item.value_json or "null")


@dataclass(frozen=True)
class Comparison:
    """Of an outcome with that of the uninterrupted study. apart: the largest difference of a weight or moment;
    faults: what is not as it should be, in words."""

    apart: float
    faults: list[str]


def compare(own: Outcome, other: Outcome, exact: bool = True, limit: float = LIMIT) -> Comparison:
    """exact: weights, moments and metrics have the same bits; else they are within `limit`, of what divides the work
    differently."""
    faults: list[str] = []
    apart = 0.0
    if own.runs.keys() != other.runs.keys():
        return Comparison(0.0, [f"runs {sorted(own.runs)} for {sorted(other.runs)}"])
    for name, run in own.runs.items():
        base = other.runs[name]
        if (run.step, run.data_digest) != (base.step, base.data_digest):
            faults.append(f"{name}: step {run.step} for {base.step}, or other batches")
        if run.tensors.keys() != base.tensors.keys():
            faults.append(f"{name}: other tensors")
            continue
        far = max(float((run.tensors[key] - base.tensors[key]).abs().max()) for key in base.tensors)
        apart = max(apart, far)
        if (run.digest != base.digest) if exact else far > limit:
            faults.append(f"{name}: weights or moments differ by {far:.1e}")
        rows_limit = 0.0 if exact else limit
        faults += [f"{name}: metrics.csv: {said}" for said in _differences(run.rows, base.rows, rows_limit)]
        faults += [f"{name}: W&B: {said}" for said in _differences(run.history, base.history, rows_limit)]
        if missing := base.summary - run.summary:
            faults.append(f"{name}: W&B lacks {sorted(missing)[:3]}")
    twice = sum(count - 1 for count in Counter(own.records).values())
    if own.records != other.records or twice:
        lost = len(Counter(other.records) - Counter(own.records))
        faults.append(f"records: {lost} of {len(other.records)} lost or other, {twice} twice")
    return Comparison(apart, faults)


def _differences(rows: Sequence[Row], wanted: Sequence[Row], limit: float) -> list[str]:
    """What rows have once too often, lack, or have otherwise. Rows are of a step, or of an evaluation's length."""
    own, base = ([_place(row) for row in some] for some in (rows, wanted))
    many, few = Counter(own) - Counter(base), Counter(base) - Counter(own)
    said = []
    if many:
        said.append(f"{sum(many.values())} rows too many, such as {next(iter(many))}")
    if few:
        said.append(f"{sum(few.values())} rows missing, such as {next(iter(few))}")
    if not said:
        pairs = zip(sorted(rows, key=_place), sorted(wanted, key=_place), strict=True)
        other = [(_place(row), names) for row, one in pairs if (names := _other_names(row, one, limit))]
        if other:
            said.append(f"{len(other)} rows with other values, such as {other[0][0]}: {'; '.join(other[0][1])}")
        elif own != base:
            said.append("rows in another order")
    return said


def _place(row: Row) -> tuple[str, float]:
    name = "eval/length" if "eval/length" in row else "tokens"
    return name, float(row.get(name, -1))


def _other_names(row: Row, other: Row, limit: float) -> list[str]:
    """Names whose values differ, with both values."""
    names = [name for name in {**row, **other} if not _alike(row.get(name), other.get(name), limit)]
    return [f"{name} {row.get(name)} for {other.get(name)}" for name in names]


def _alike(value: Any, other: Any, limit: float) -> bool:
    if isinstance(value, int | float) and isinstance(other, int | float):
        return value == other or abs(value - other) <= limit * max(1.0, abs(other))
    return value == other
