"""One session of probing: checkpoints, as trained and with methods, over one grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.config import Config
from lcprobe.data.prepare import Prepared
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.lengths import in_tokens
from lcprobe.probing.config import ContextProbe
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.runner import units_of_other_code
from lcprobe.probing.store import Store, text_store
from lcprobe.probing.units import Plan, Unit
from lcprobe.probing.unmade import NotMade
from lcprobe.studies.evaluation.dividing.checks import check_shared
from lcprobe.studies.evaluation.jobs.job import Job, do_jobs, job_of
from lcprobe.studies.evaluation.jobs.model_notes import read_notes
from lcprobe.studies.evaluation.jobs.study_progress import ProbingProgress
from lcprobe.studies.evaluation.jobs.units_file import write_probe_units
from lcprobe.studies.evaluation.readers import Reader, ReaderKey, check_readers_fit, open_readers, reader_key
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant, variants_of
from lcprobe.studies.progress_display import ProgressDisplay


@dataclass(frozen=True)
class Session:
    """Everything that one run of `evaluate.py` works with. readers: by tokenizer and template, that of the first
    variant first."""

    targets: list[ProbeTarget]
    variants: list[Variant]
    config: Config
    out: Path
    store: Store
    readers: dict[ReaderKey, Reader]
    notes: list[str]
    """Cells and methods that are left out, and why."""
    unread: list[str] = field(default_factory=list)
    """Models that cannot read all lengths, also those that are left out altogether: what is missing, and why."""
    outdated: list[str] = field(default_factory=list)
    """Of `notes`, those on finished units that count no longer, as the code of their task is another now."""

    @property
    def reference(self) -> Reader:
        """The reader of the first variant: its tokens are those of `length` where the text is equal."""
        return next(iter(self.readers.values()))

    @property
    def tasks(self) -> TaskSet:
        """Tasks under the reference tokenizer."""
        return self.reference.tasks

    @property
    def plan(self) -> Plan:
        """The units of work, the same for all readers."""
        return self.reference.plan

    @property
    def data(self) -> Prepared:
        """The corpus in tokens of the reference."""
        return self.reference.data

    def reader_of(self, variant: Variant) -> Reader:
        """What a variant reads."""
        return self.readers[reader_key(variant)]

    def plan_of(self, variant: Variant) -> Plan:
        """The units of work whose length a variant's model can read."""
        reader = self.reader_of(variant)
        return replace(reader.plan, units=[unit for unit in reader.plan.units if _reads(variant, reader, unit)])

    def without(self, left_out: Mapping[Unit, NotMade]) -> "Session":
        """The session without units that cannot be made, which are noted. Raises EpisodeError where none is left."""
        readers = {
            key: replace(reader, plan=replace(reader.plan, units=[u for u in reader.plan.units if u not in left_out]))
            for key, reader in self.readers.items()
        }
        if not all(reader.plan.units for reader in readers.values()):
            raise next(iter(left_out.values()))
        return replace(self, readers=readers, notes=[*self.notes, *map(str, left_out.values())])

    def text_of(self, variant: Variant) -> ContextProbe | None:
        """The lengths of plain text that a variant's model can read; None where there are none."""
        text, limit = self.config.probe.context, variant.max_length
        if text is None:
            return None
        lengths = [n for n in text.tokens(context_lengths(self.targets)) if limit is None or n <= limit]
        return replace(text, lengths=in_tokens(*lengths)) if lengths else None


def context_lengths(targets: list[ProbeTarget]) -> list[int]:
    """The training lengths of the targets, ascending, each once."""
    return sorted({target.config.train.context_length for target in targets})


def open_session(targets: list[ProbeTarget], config: Config, out: Path) -> Session:
    """Tasks and units of work for these targets, the same units for all. Raises ConfigError where there is nothing to
    probe, and what `variants_of` and `open_readers` raise."""
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    variants, left_out = variants_of(targets, config.pe, config.compat, config.probe.templates)
    check_shared(variants, config.probe)
    contexts = context_lengths(targets)
    planned = check_readers_fit(variants, config, contexts)
    if planned is not None:
        _able(
            variants, planned, lambda variant, unit: variant.max_length is None or unit.length <= variant.max_length
        )
    readers = open_readers(variants, config, contexts)
    plan = next(iter(readers.values())).plan
    able = _able(variants, plan, lambda variant, unit: _reads(variant, readers[reader_key(variant)], unit))
    kept = [target for target in targets if any(variant.target is target for variant in able)]
    store = Store(out / "records")
    old = dict.fromkeys(note for r in readers.values() for note in units_of_other_code(r.plan, r.tasks, store))
    session = Session(kept, able, config, out, store, readers, [*plan.notes, *left_out, *old], outdated=[*old])
    return replace(session, unread=_unread(variants, session, contexts))


def _able(variants: list[Variant], plan: Plan, reads: Callable[[Variant, Unit], bool]) -> list[Variant]:
    """The variants whose models can read a cell of the grid. Raises ConfigError for a model that cannot read its own
    training length, EpisodeError where there is no cell, and where none can read any."""
    for variant in variants:
        length, limit = variant.target.config.train.context_length, variant.max_length
        if limit is not None and length > limit:
            given = f"{variant.name} was trained at {length} tokens"
            raise ConfigError("model.context_length", given, f"<= {limit}, the model's maximum length")
    if not plan.units:
        raise no_cell(plan.notes)
    able = [variant for variant in variants if any(reads(variant, unit) for unit in plan.units)]
    if not able:
        limit, shortest = max(variant.max_length or 0 for variant in variants), min(u.length for u in plan.units)
        given = f"cells of {shortest} tokens or more"
        raise EpisodeError("probe.grids", given, f"<= {limit}, the models' maximum length")
    return able


def no_cell(notes: Sequence[str]) -> EpisodeError:
    """The error for grids of which no cell can be built. notes: why."""
    reason = f" ({notes[0]})" if notes else ""
    return EpisodeError("probe.grids", "no cell that can be built", f"a grid with at least one{reason}")


def _reads(variant: Variant, reader: Reader, unit: Unit) -> bool:
    return variant.max_length is None or reader.longest(unit) <= variant.max_length


def _unread(variants: list[Variant], session: Session, contexts: list[int]) -> list[str]:
    """A statement for each variant whose model cannot read all lengths of the grid or of the plain text."""
    notes: list[str] = []
    cells = sum(len(unit.cells) for unit in session.plan.units)
    for variant in variants:
        text, limit = session.config.probe.context, variant.max_length
        if limit is None:
            continue
        reader, parts = session.reader_of(variant), []
        beyond = sum(len(unit.cells) for unit in session.plan.units if not _reads(variant, reader, unit))
        if beyond == cells:
            parts.append("the whole model, as no cell is that short")
        elif beyond:
            parts.append(f"{beyond} of {cells} cells")
        if beyond < cells and text is not None and any(n > limit for n in text.tokens(contexts)):
            parts.append("the longer texts")
        if parts:
            ends = f"{variant.name} reads at most {limit} tokens, where its positions end"
            notes.append(f"{ends}; left out: {' and '.join(parts)}")
    return notes


Biases = dict[str, list[dict[str, Any]]]
"""By variant, the biases that its attention adds to scores, by distance."""


@dataclass(frozen=True)
class Probed:
    """Results of probing: records of the grid, records of plain text where it was measured, and the variants' biases.

    record_units, text_units: ids of the finished units of work that have the records. left_out: units of which some
    sample cannot be made with some tokenizer, left out for every model.
    """

    records: pa.Table
    context: pa.Table | None
    biases: Biases
    record_units: list[str]
    text_units: list[str]
    left_out: dict[Unit, NotMade]
    engine_notes: dict[str, str]
    """By variant, how its engine reads, where that is worth a line."""


def jobs_of(session: Session) -> list[Job]:
    """What there is to do for every variant."""
    probe, texts = session.config.probe, text_store(session.out)
    return [
        job_of(
            variant,
            session.reader_of(variant),
            session.plan_of(variant),
            session.text_of(variant),
            probe,
            session.store,
            texts,
        )
        for variant in session.variants
    ]


def probe_session(session: Session, display: ProgressDisplay | None = None) -> Probed:
    """Probe every variant on the whole grid, and on plain text where the config asks for it; other processes may do
    the same in the same folder, see `jobs`. display: shows progress; None: nothing does."""
    jobs, texts = jobs_of(session), text_store(session.out)
    write_probe_units(session.out, jobs)
    progress = ProbingProgress(ProgressDisplay(shown=False) if display is None else display, jobs)
    do_jobs(jobs, session.config.probe, progress.of)
    text_units = [job.text_unit for job in jobs if job.text_unit]
    context = texts.read(text_units) if text_units else None
    left_out = {unit: error for reader in session.readers.values() for unit, error in reader.tasks.not_made.items()}
    record_units = [name for job in jobs for name, unit in job.work.units.items() if unit not in left_out]
    notes = {job.variant.name: read_notes(job.notes) for job in jobs}
    biases = {name: own.biases for name, own in notes.items()}
    engine_notes = {name: own.engine for name, own in notes.items() if own.engine}
    return Probed(session.store.read(record_units), context, biases, record_units, text_units, left_out, engine_notes)
