"""What a session has to do for each variant, in a store that several processes may share.

A process takes a variant that has something free, one for which the fewest others work, loads its model, does what is
free, and looks again; where nothing is free it waits for the others, and goes on with what a dead one leaves. A model
is loaded only where there is something to do for it, or where nobody has written down what the report says of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lcprobe.locks import Process
from lcprobe.probing.config import ContextProbe, ProbeConfig
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.plain_text import context_facts, run_context
from lcprobe.probing.progress import TOKEN_COLUMNS, ProbeProgress, amount_of_units, shared_tokens_text
from lcprobe.probing.runner import run_free
from lcprobe.probing.sharing.waiting import Waiting
from lcprobe.probing.sharing.work import ProbedCheckpoint, Work, work_of
from lcprobe.probing.store import Store, unit_id
from lcprobe.probing.units import Plan
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.dividing.loading import load_shared, with_others
from lcprobe.studies.evaluation.engines import device, pass_parity_gate, scorer_of
from lcprobe.studies.evaluation.jobs.model_notes import notes_of, write_notes
from lcprobe.studies.evaluation.readers import Reader
from lcprobe.studies.evaluation.variants import Variant, checkpoint_of
from lcprobe.words import and_list, counted


@dataclass(frozen=True)
class Job:
    """Everything to do for one variant. text: the lengths of plain text that it reads; text_unit: the id of that
    unit, empty without; notes: the file of its ModelNotes, claimed by its name."""

    variant: Variant
    checkpoint: ProbedCheckpoint
    reader: Reader
    work: Work
    store: Store
    text: ContextProbe | None
    texts: Store
    text_unit: str
    notes: Path

    def is_done(self) -> bool:
        """Whether nothing is left, for any process."""
        return not self.work.left(self.store) and not self._text_left() and self.notes.is_file()

    def has_free(self, taken: Mapping[str, Process]) -> bool:
        """Whether there is something that no process does. taken: the claims of both stores."""
        notes_free = not self.notes.is_file() and self.notes.stem not in taken
        text_free = self._text_left() and self.text_unit not in taken
        return notes_free or text_free or self.work.has_free(self.store, taken)

    def claimed(self, taken: Mapping[str, Process]) -> dict[str, Process]:
        """Which process has what."""
        found = {f"{self.variant.name}, {label}": who for label, who in self.work.claimed(taken).items()}
        text = taken.get(self.text_unit)
        return found if text is None else {**found, f"{self.variant.name}, plain text": text}

    def _text_left(self) -> bool:
        return bool(self.text_unit) and not self.texts.has(self.text_unit)


def job_of(
    variant: Variant,
    reader: Reader,
    plan: Plan,
    text: ContextProbe | None,
    probe: ProbeConfig,
    store: Store,
    texts: Store,
) -> Job:
    """The job of a variant. plan, text: what its model can read. No weights are loaded."""
    checkpoint = checkpoint_of(variant, probe)
    work, text_unit = work_of(plan, reader.tasks, checkpoint, probe.scoring), ""
    # plain text has no question to select chunks by, and a server gives no state
    if variant.selects_prompt or variant.target.source.served:
        text = None
    if text is not None:
        length = variant.target.config.train.context_length
        text_unit = unit_id(context_facts(text, length, reader.tasks.materials, checkpoint))
    name = unit_id({**checkpoint.facts, "biases": _longest(plan)})
    notes = store.folder.parent / "models" / f"{name}.json"
    return Job(variant, checkpoint, reader, work, store, text, texts, text_unit, notes)


class Failures(Protocol):
    """What becomes of a job that fails."""

    def given_up(self, job: Job) -> bool:
        """Whether no process is to try it any more."""
        ...

    def failed(self, job: Job, error: Exception) -> None:
        """Take note of an error; raises it where it is to end the process."""
        ...


class Raised:
    """Failures that end the process."""

    def given_up(self, job: Job) -> bool:
        """No job is."""
        return False

    def failed(self, job: Job, error: Exception) -> None:
        """Raises the error."""
        raise error


def do_jobs(
    jobs: Sequence[Job],
    probe: ProbeConfig,
    progress: Callable[[Job], ProbeProgress],
    failures: Failures | None = None,
) -> None:
    """Do what is free of every job until all are done or given up, by this process or others. progress: of a job;
    failures: None: an error is raised."""
    failures = Raised() if failures is None else failures
    waiting, complete = Waiting(), [job for job in jobs if job.is_done()]
    left = [job for job in jobs if not any(job is other for other in complete)]
    if complete:
        cells = sum(len(list(unit.rows())) for job in complete for unit in job.work.plan.units)
        names = and_list([job.variant.name for job in complete], 3)
        say(f"{names}: 0 new of {counted(cells, 'cell')}, read from records", to_stderr=True)
    while left := [job for job in left if not failures.given_up(job)]:
        taken = {**left[0].store.claims(), **left[0].texts.claims()}  # the stores are the same for all jobs
        free = [job for job in left if job.has_free(taken)]
        if free:
            job = min(free, key=lambda job: len(job.claimed(taken)))
            try:
                with with_others(probe):
                    _do(job, probe, progress(job))
            except Exception as error:
                failures.failed(job, error)
        done = [job for job in left if job.is_done()]
        for job in done:
            left.remove(job)
            text = shared_tokens_text(job.variant.name, job.store.read(job.work.units, TOKEN_COLUMNS))
            say(*filter(None, [text]), to_stderr=True)
        if not free and not done:
            waiting({what: who for job in left for what, who in job.claimed(taken).items()})


def _do(job: Job, probe: ProbeConfig, progress: ProbeProgress) -> None:
    """Load a job's model, do what is free, and write its notes unless another process does."""
    loaded, checkpoint = load_shared(job.variant, device(), job.reader.data, probe)
    claim = None if job.notes.is_file() else job.store.claim(job.notes.stem)
    try:
        more = [pass_parity_gate(job.variant.name, loaded, job.work.plan, job.reader.tasks, probe)]
        scorer, at_once = scorer_of(loaded, job.reader.data.tokenizer, probe), probe.batch_tokens
        run_free(
            job.work, scorer, checkpoint, job.store, batch_tokens=at_once, scoring=probe.scoring, progress=progress
        )
        if job.text is not None and loaded.engine is not None:
            progress(amount_of_units(job.work.plan.units), "plain text")
            length = job.variant.target.config.train.context_length
            model, materials = in_precision(loaded.engine, checkpoint.precision), job.reader.tasks.materials
            at = {"chunk": probe.chunk, "batch_tokens": at_once, "device": device()}
            run_context(job.text, length, materials, model, checkpoint, job.texts, **at)
        if probe.context is not None and job.variant.target.source.served:
            more.append("plain text is not measured: a server gives no state")
        if claim is not None and not isinstance(claim, Process):
            write_notes(job.notes, notes_of(loaded, _longest(job.work.plan), more))
    finally:
        if claim is not None and not isinstance(claim, Process):
            claim.release()


def _longest(plan: Plan) -> int:
    return max(unit.length for unit in plan.units)
