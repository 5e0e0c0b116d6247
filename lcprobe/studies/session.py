"""Who is probed, with what: checkpoints, as trained and with methods, into one session over one grid."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lcprobe.config import Config
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.models.positional.curves import bias_curves
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.context import run_context
from lcprobe.probing.grid import Plan, TaskSet
from lcprobe.probing.runner import SayLines, run_plan, say_shared
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import Store
from lcprobe.records import CONTEXT_SCHEMA
from lcprobe.studies.columns import Column, columns_of, loaded
from lcprobe.studies.targets import Target
from lcprobe.training.checkpoint import check_same_corpus


@dataclass(frozen=True)
class Session:
    """Everything that one `evaluate.py` works with."""

    targets: list[Target]
    columns: list[Column]
    config: Config
    out: Path
    store: Store
    tasks: TaskSet
    plan: Plan
    data: Prepared


def open_session(targets: list[Target], config: Config, out: Path) -> Session:
    """Tasks and units for these targets. Raises ConfigError when they were trained at different lengths or tokenizers,
    and what `columns_of` raises."""
    first = targets[0].config
    for target in targets[1:]:
        for key in ("tokenizer", "bos"):
            if getattr(target.config.data, key) != getattr(first.data, key):
                given, wanted = (getattr(c.data, key) for c in (target.config, first))
                allowed = f"{wanted!r} as {targets[0].name}, or a report of its own"
                raise ConfigError(f"data.{key}", f"{target.name} has {given!r}", allowed)
        lengths = target.config.train.context_length, first.train.context_length
        if lengths[0] != lengths[1]:
            given = f"{target.name} was trained at {lengths[0]}"
            raise ConfigError("train.context_length", given, f"{lengths[1]} as {targets[0].name}, or a report of its own")
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    columns, left_out = columns_of(targets, config.pe)
    data = prepare(first.data)
    for target in targets:
        check_same_corpus(target.checkpoint, data.manifest)
    cache = EpisodeCache(Path(first.data.folder) / "episodes", round(config.probe.cache_gb * 1e9))
    tasks = TaskSet(config.probe, data.materials("probe"), cache if cache.limit else None)
    plan = tasks.plan(config.probe.grids, first.train.context_length)
    if not plan.units:
        raise EpisodeError("probe.grids", plan.notes[0] if plan.notes else "no cell", "a grid with at least one cell that fits")
    plan = replace(plan, notes=[*plan.notes, *left_out])
    return Session(targets, columns, config, out, Store(out / "records"), tasks, plan, data)


Biases = dict[str, list[dict[str, Any]]]
"""By column: what its attention adds to scores by distance."""


def probe(session: Session, say: Callable[[str], Any] = SayLines) -> tuple[pa.Table, pa.Table | None, Biases]:
    """Probe every column; the records of the whole grid, of plain text where the config asks for it, and columns' biases."""
    tables, text_tables, biases = [], [], {}
    longest = max(row["length"] for unit in session.plan.units for row in unit.rows())
    text_store, text = Store(session.out / "context", CONTEXT_SCHEMA), session.config.probe.context
    for column in session.columns:
        model, subject = loaded(column, device(), session.data)
        biases[column.name] = bias_curves(model, longest)
        generate = session.config.probe.scoring == "generate"
        chunk, batch_tokens = session.config.probe.chunk, session.config.probe.batch_tokens
        scorer = ModelScorer(model, session.data.tokenizer, device(), chunk, generate, batch_tokens)
        ids = run_plan(
            session.plan,
            session.tasks,
            scorer,
            subject,
            session.store,
            batch_tokens=batch_tokens,
            scoring=session.config.probe.scoring,
            say=say(column.name),
        )
        tables.append(session.store.read(ids))
        say_shared(column.name, tables[-1])
        if text is not None and model.selection is None:  # plain text has no question to choose a piece by
            unit = run_context(
                text,
                column.target.config.train.context_length,
                session.tasks.materials,
                model,
                subject,
                text_store,
                chunk=chunk,
                batch_tokens=batch_tokens,
                device=device(),
            )
            text_tables.append(text_store.read([unit]))
    return pa.concat_tables(tables), pa.concat_tables(text_tables) if text_tables else None, biases


def device() -> str:
    """Where models are probed."""
    return "cuda" if torch.cuda.is_available() else "cpu"
