"""One session of probing: checkpoints, as trained and with methods, over one grid."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lcprobe.config import Config
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.lengths import in_tokens
from lcprobe.models.bias_curves import bias_curves
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import ContextProbe
from lcprobe.probing.grid import Plan, TaskSet
from lcprobe.probing.plain_text import run_context
from lcprobe.probing.progress import ProbeProgress, ProbeProgressLines, print_shared_tokens
from lcprobe.probing.runner import run_plan
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import Store
from lcprobe.records import CONTEXT_SCHEMA
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant, load_variant, variants_of
from lcprobe.studies.planning.preflight import check_probes_fit
from lcprobe.training.checkpoint import check_same_corpus


@dataclass(frozen=True)
class Session:
    """Everything that one run of `evaluate.py` works with."""

    targets: list[ProbeTarget]
    variants: list[Variant]
    config: Config
    out: Path
    store: Store
    tasks: TaskSet
    plan: Plan
    data: Prepared

    def plan_of(self, variant: Variant) -> Plan:
        """The units of work whose length a variant's model can read."""
        return replace(self.plan, units=[unit for unit in self.plan.units if _reads(variant, unit.length)])

    def text_of(self, variant: Variant) -> ContextProbe | None:
        """The lengths of plain text that a variant's model can read; None where there are none."""
        text = self.config.probe.context
        if text is None:
            return None
        lengths = [n for n in text.tokens(context_lengths(self.targets)) if _reads(variant, n)]
        return replace(text, lengths=in_tokens(*lengths)) if lengths else None


def context_lengths(targets: list[ProbeTarget]) -> list[int]:
    """The training lengths of the targets, ascending, each once."""
    return sorted({target.config.train.context_length for target in targets})


def open_session(targets: list[ProbeTarget], config: Config, out: Path) -> Session:
    """Tasks and units of work for these targets, the same for all. Raises ConfigError for targets of different
    tokenizers, and what `variants_of` raises."""
    first = targets[0].config
    for target in targets[1:]:
        for key in ("tokenizer", "bos"):
            if getattr(target.config.data, key) != getattr(first.data, key):
                given, wanted = (getattr(c.data, key) for c in (target.config, first))
                allowed = f"{wanted!r} as {targets[0].name}, or a report of its own"
                raise ConfigError(f"data.{key}", f"{target.name} has {given!r}", allowed)
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    variants, left_out = variants_of(targets, config.pe)
    _readers(variants, check_probes_fit(config.probe, first.data.tokenizer, first.data.bos, context_lengths(targets)))
    data = prepare(first.data)
    for target in targets:
        check_same_corpus(target.checkpoint, data.manifest)
    cache = EpisodeCache(Path(first.data.folder) / "episodes", round(config.probe.cache_gb * 1e9))
    tasks = TaskSet(config.probe, data.materials("probe"), cache if cache.limit else None)
    plan = tasks.plan(config.probe.grids, *context_lengths(targets))
    readers = _readers(variants, plan)
    plan = replace(plan, notes=[*plan.notes, *left_out, *_unread(variants, plan, config)])
    kept = [target for target in targets if any(variant.target is target for variant in readers)]
    return Session(kept, readers, config, out, Store(out / "records"), tasks, plan, data)


def _readers(variants: list[Variant], plan: Plan) -> list[Variant]:
    """The variants whose models can read a cell of the grid. Raises ConfigError for a model that cannot read its own
    training length, EpisodeError where there is no cell, and where none can read any."""
    for variant in variants:
        length = variant.target.config.train.context_length
        if not _reads(variant, length):
            given = f"{variant.name} was trained at {length} tokens"
            raise ConfigError("model.context_length", given, f"<= {variant.max_length}, the model's maximum length")
    if not plan.units:
        given = plan.notes[0] if plan.notes else "no cell"
        raise EpisodeError("probe.grids", given, "a grid with at least one cell that fits")
    shortest = min(unit.length for unit in plan.units)
    readers = [variant for variant in variants if _reads(variant, shortest)]
    if not readers:
        limit = max(variant.max_length or 0 for variant in variants)
        given = f"cells of {shortest} tokens or more"
        raise EpisodeError("probe.grids", given, f"<= {limit}, the models' maximum length")
    return readers


def _reads(variant: Variant, length: int) -> bool:
    return variant.max_length is None or length <= variant.max_length


def _unread(variants: list[Variant], plan: Plan, config: Config) -> list[str]:
    """A note for each variant whose model cannot read all lengths of the grid or of the plain text."""
    notes = []
    contexts = sorted({variant.target.config.train.context_length for variant in variants})
    for variant in variants:
        cells = [row for unit in plan.units for row in unit.rows()]
        beyond = sum(not _reads(variant, row["length"]) for row in cells)
        text = config.probe.context
        longer = text is not None and any(not _reads(variant, n) for n in text.tokens(contexts))
        parts = []
        if beyond:
            parts.append(f"{beyond} of {len(cells)} cells")
        if longer:
            parts.append("the longer texts")
        if parts:
            notes.append(
                f"{variant.name}: {' and '.join(parts)}: the model reads at most {variant.max_length} tokens"
            )
    return notes


Biases = dict[str, list[dict[str, Any]]]
"""By variant, the biases that its attention adds to scores, by distance."""


@dataclass(frozen=True)
class Probed:
    """Results of probing: records of the grid, records of plain text where it was measured, and the variants' biases.

    record_units, text_units: ids of the finished units of work that have the records.
    """

    records: pa.Table
    context: pa.Table | None
    biases: Biases
    record_units: list[str]
    text_units: list[str]


def text_store(out: Path) -> Store:
    """The store of measurements on plain text in a study's folder."""
    return Store(out / "context", CONTEXT_SCHEMA)


def probe_session(session: Session, progress: Callable[[str], ProbeProgress] = ProbeProgressLines) -> Probed:
    """Probe every variant on the whole grid, and on plain text where the config asks for it."""
    record_units, text_units, biases, texts = [], [], {}, text_store(session.out)
    for variant in session.variants:
        model, checkpoint = load_variant(variant, device(), session.data)
        plan, text = session.plan_of(variant), session.text_of(variant)
        longest = max(unit.length for unit in plan.units)
        biases[variant.name] = bias_curves(model, longest)
        generate = session.config.probe.scoring == "generate"
        chunk, batch_tokens = session.config.probe.chunk, session.config.probe.batch_tokens
        scorer = ModelScorer(model, session.data.tokenizer, device(), chunk, generate, batch_tokens)
        ids = run_plan(
            plan,
            session.tasks,
            scorer,
            checkpoint,
            session.store,
            batch_tokens=batch_tokens,
            scoring=session.config.probe.scoring,
            progress=progress(variant.name),
        )
        record_units += ids
        print_shared_tokens(variant.name, session.store.read(ids))
        if text is not None and model.selection is None:  # plain text has no question to select chunks by
            unit = run_context(
                text,
                variant.target.config.train.context_length,
                session.tasks.materials,
                model,
                checkpoint,
                texts,
                chunk=chunk,
                batch_tokens=batch_tokens,
                device=device(),
            )
            text_units.append(unit)
    context = texts.read(text_units) if text_units else None
    return Probed(session.store.read(record_units), context, biases, record_units, text_units)


def device() -> str:
    """The device on which models are probed."""
    return "cuda" if torch.cuda.is_available() else "cpu"
