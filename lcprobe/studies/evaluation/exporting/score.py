"""Outputs of other harnesses to exported samples, as records of a study and in its report: implements `lcprobe
score`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.report.write import write_report
from lcprobe.errors import DataError, listed
from lcprobe.files import check_name, digest_json, read_json
from lcprobe.locks import folder_lock
from lcprobe.probing.external.export import Sample
from lcprobe.probing.external.outputs import Output, missing_score, read_outputs, read_samples, record_from, score_of
from lcprobe.probing.store import Store, unit_id
from lcprobe.records import Record
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.exporting.export import MANIFEST
from lcprobe.studies.evaluation.exporting.same_study import (
    EXTERNAL,
    require_not_probed,
    require_same_grid,
    require_same_samples,
)
from lcprobe.studies.evaluation.report_inputs import REPORT_INPUTS, ReportInputs, load_inputs, save_inputs
from lcprobe.studies.evaluation.reporting.screen import say_report
from lcprobe.studies.runtime import set_up_logging
from lcprobe.studies.status import versions
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

SHOWN_IDS = 3


@dataclass(frozen=True)
class Answered:
    """An exported unit with the outputs to its samples, by id. facts: what its records depend on."""

    file: str
    samples: list[Sample]
    outputs: dict[str, Output]
    facts: dict[str, Any]

    @property
    def unit(self) -> str:
        """What it is called in the store."""
        return unit_id(self.facts)

    def records(self, columns: dict[str, Any], tokenizer: Tokenizer) -> list[Record]:
        """A row for each sample. columns: of the model."""
        given = self.outputs
        scores = [score_of(s, given[s.id], tokenizer) if s.id in given else missing_score() for s in self.samples]
        return [record_from(s, score, columns) for s, score in zip(self.samples, scores, strict=True)]


def score_outputs(folder: Path, files: Sequence[Path], model: str, study: dict[str, str]) -> Path:
    """Outputs to exported samples as records of a model, and the report of its study with them; returns report.html.
    study: name and folder in place of those that were exported. Everything is checked before anything is written.

    Raises DataError for files that are no outputs, outputs to no sample, and a study of another grid or of other
    samples; ConfigError for the name of a model that was probed in the study.
    """
    set_up_logging()
    check_name("--model", model)
    manifest = _manifest(folder)
    given = manifest["tokenizer"]
    tokenizer = load_tokenizer(given["name"], given["bos"])
    if tokenizer.identity != given["identity"]:
        raise DataError(f"{folder}: data.tokenizer {given['name']} is another one now; allowed: the exported one")
    outputs = read_outputs(files)
    units = [_answered(folder, unit, outputs, model) for unit in manifest["units"]]
    answered = [unit for unit in units if unit.outputs]
    if not answered:
        raise DataError(f"{listed(map(str, files))}: no output to a sample of {folder}; allowed: its outputs")
    notes = [*manifest["notes"], *_notes(units, outputs, model)]
    harnesses = ", ".join(sorted({output.harness for output in outputs.values()}))
    columns = {"model": model, "checkpoint": EXTERNAL, "step": 0, "tokens": 0, "engine": harnesses}
    columns |= {"extension": "none", "factor": 1.0}
    named = {**manifest["study"], **study}
    out = Path(named["folder"]) / named["name"]
    new = _study(manifest, named["name"], model, notes)
    store = Store(out / "records")
    with folder_lock(out / "records"):
        old = load_inputs(out) if (out / REPORT_INPUTS).is_file() else None
        require_not_probed(store, old, model)
        if old is not None:
            require_same_grid(out, old, new.expected_cells)
            samples = [sample for unit in units for sample in unit.samples]
            require_same_samples(out, folder, old.records(out), samples, model)
        made = [(unit, unit.records(columns, tokenizer)) for unit in answered if not store.has(unit.unit)]
        for unit, records in made:
            store.finish(unit.unit, records, unit.facts)
        inputs = _together(old, new, [unit.unit for unit in answered], store, model)
    save_inputs(out, inputs)
    report = write_report(inputs.study, inputs.records(out), out, context=inputs.context(out), names=inputs.names)
    say(*notes, indent=2)
    say_report(report)
    return report.html


def _answered(folder: Path, unit: dict[str, Any], outputs: Mapping[str, Output], model: str) -> Answered:
    samples = read_samples(folder / "samples" / unit["file"])
    own = {sample.id: outputs[sample.id] for sample in samples if sample.id in outputs}
    facts = {**unit["facts"], "name": model, "checkpoint": EXTERNAL, "outputs": _digest(own)}
    return Answered(unit["file"], samples, own, facts)


def _notes(units: Sequence[Answered], outputs: Mapping[str, Output], model: str) -> list[str]:
    """Samples without output, and outputs without sample."""
    notes, used = list[str](), set[str]()
    for unit in units:
        used |= unit.outputs.keys()
        missing, n = len(unit.samples) - len(unit.outputs), len(unit.samples)
        notes += [f"{model}: {missing} of {n} outputs of {unit.file} missing"] if missing else []
    unknown = sorted(outputs.keys() - used)
    if unknown:
        shown = listed(unknown[:SHOWN_IDS], ", ")
        notes.append(f"{model}: {len(unknown)} outputs are to no exported sample ({shown})")
    return notes


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: no {MANIFEST}; allowed: a folder that lcprobe export wrote")
    return read_json(folder / MANIFEST)


def _digest(outputs: dict[str, Output]) -> str:
    return digest_json([[key, vars(output)] for key, output in sorted(outputs.items())])[:16]


def _study(manifest: dict[str, Any], name: str, model: str, notes: list[str]) -> StudyFacts:
    """The facts of a study with this model alone, of which nothing is known but its outputs."""
    run = RunFacts(
        name=model, group=model, layout="unknown", seed=0, context_length=manifest["context_length"], params=0,
        embedding_params=0, tokens=0, lr=None, seconds=None, data_digest="", skipped_steps=0, checkpoint=EXTERNAL,
        tuned="published", tokenizer=manifest["tokenizer"]["identity"][:16], template=manifest["template"],
    )  # fmt: skip
    tasks = [TaskFacts(**{**task, "controls": tuple(task["controls"])}) for task in manifest["tasks"]]
    cells = [row for unit in manifest["units"] for row in unit["cells"]]
    return StudyFacts(
        name=name, runs=[run], tasks=tasks, matching=[], mismatch=0.0, sweep=[], versions=versions(),
        config_yaml=manifest["config"], expected_cells=cells, notes=notes,
    )  # fmt: skip


def _together(old: ReportInputs | None, new: StudyFacts, units: list[str], store: Store, model: str) -> ReportInputs:
    """With the models that the study's report is about already, this one's earlier outputs apart."""
    if old is None:
        return ReportInputs(new, units, [])
    replaced = {unit for unit, summary in store.summaries().items() if summary.model == model}
    kept = [unit for unit in old.record_units if unit not in replaced]
    runs = [*(run for run in old.study.runs if run.name != model), *new.runs]
    earlier = [note for note in old.study.notes if not note.startswith(f"{model}: ")]
    notes = list(dict.fromkeys([*earlier, *new.notes]))
    amounts = [] if len(old.study.amounts) != len(runs) else old.study.amounts
    study = replace(old.study, runs=runs, notes=notes, amounts=amounts)
    return replace(old, study=study, record_units=[*kept, *units])
