"""Outputs of other harnesses to exported samples, as records of a study and in its report: implements `lcprobe
score`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.analysis.report.write import write_report
from lcprobe.errors import DataError, listed
from lcprobe.files import check_name, digest_json, read_json
from lcprobe.locks import folder_lock
from lcprobe.probing.external.outputs import Output, missing_score, read_outputs, read_samples, record_from, score_of
from lcprobe.probing.store import Store, unit_id
from lcprobe.studies.console import terminal
from lcprobe.studies.evaluation.exporting.export import MANIFEST
from lcprobe.studies.evaluation.report_inputs import REPORT_INPUTS, ReportInputs, load_inputs, save_inputs
from lcprobe.studies.runtime import set_up_logging
from lcprobe.studies.status import versions
from lcprobe.tasks.text.tokenizer import load_tokenizer

SHOWN_IDS = 3


def score_outputs(folder: Path, files: Sequence[Path], model: str, study: dict[str, str]) -> Path:
    """Outputs to exported samples as records of a model, and the report of its study with them; returns report.html.
    study: name and folder in place of those that were exported.

    Raises DataError for files that are no outputs, outputs to no sample and a report of another grid.
    """
    set_up_logging()
    check_name("--model", model)
    manifest = _manifest(folder)
    given = manifest["tokenizer"]
    tokenizer = load_tokenizer(given["name"], given["bos"])
    if tokenizer.identity != given["identity"]:
        raise DataError(f"{folder}: data.tokenizer {given['name']} is another one now; allowed: the exported one")
    outputs = read_outputs(files)
    named = {**manifest["study"], **study}
    out = Path(named["folder"]) / named["name"]
    store, units, notes, used = Store(out / "records"), [], list(manifest["notes"]), set[str]()
    harnesses = ", ".join(sorted({output.harness for output in outputs.values()}))
    columns = {"model": model, "checkpoint": "external", "step": 0, "tokens": 0, "engine": harnesses}
    columns |= {"extension": "none", "factor": 1.0}
    with folder_lock(out / "records"):
        for unit in manifest["units"]:
            samples = read_samples(folder / "samples" / unit["file"])
            own = {sample.id: outputs[sample.id] for sample in samples if sample.id in outputs}
            used |= own.keys()
            if len(own) < len(samples):
                notes.append(
                    f"{model}: {len(samples) - len(own)} of {len(samples)} outputs of {unit['file']} missing"
                )
            if not own:
                continue
            facts = {**unit["facts"], "name": model, "checkpoint": "external", "outputs": _digest(own)}
            units.append(unit_id(facts))
            if not store.has(units[-1]):
                scores = [score_of(s, own[s.id], tokenizer) if s.id in own else missing_score() for s in samples]
                store.finish(
                    units[-1],
                    [record_from(s, score, columns) for s, score in zip(samples, scores, strict=True)],
                    facts,
                )
        if not used:
            raise DataError(f"{listed(map(str, files))}: no output to a sample of {folder}; allowed: its outputs")
        unknown = sorted(outputs.keys() - used)
        if unknown:
            shown = listed(unknown[:SHOWN_IDS], ", ")
            notes.append(f"{model}: {len(unknown)} outputs are to no exported sample ({shown})")
        inputs = _together(out, _study(manifest, named["name"], model, notes), units, store, model)
    save_inputs(out, inputs)
    report = write_report(inputs.study, inputs.records(out), out, context=inputs.context(out))
    console = terminal()
    for note in notes:
        console.print(f"  {note}", highlight=False, soft_wrap=True)
    for sentence in report.summary:
        console.print(f"- {sentence}", highlight=False)
    console.print(f"report: {report.html}", soft_wrap=True)
    return report.html


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
        embedding_params=0, tokens=0, lr=None, seconds=None, data_digest="", skipped_steps=0, checkpoint="external",
        tuned="published", tokenizer=manifest["tokenizer"]["identity"][:16], template=manifest["template"],
    )  # fmt: skip
    tasks = [TaskFacts(**{**task, "controls": tuple(task["controls"])}) for task in manifest["tasks"]]
    cells = [row for unit in manifest["units"] for row in unit["cells"]]
    return StudyFacts(
        name=name, runs=[run], tasks=tasks, matching=[], mismatch=0.0, sweep=[], versions=versions(),
        config_yaml=manifest["config"], expected_cells=cells, notes=notes,
    )  # fmt: skip


def _together(out: Path, new: StudyFacts, units: list[str], store: Store, model: str) -> ReportInputs:
    """With the models that the folder's report is about already, this one's earlier outputs apart. Raises DataError
    where it is about another grid."""
    if not (out / REPORT_INPUTS).is_file():
        return ReportInputs(new, units, [])
    old = load_inputs(out)
    if digest_json(sorted(map(digest_json, old.study.expected_cells))) != digest_json(
        sorted(map(digest_json, new.expected_cells))
    ):
        raise DataError(f"{out}: its report is about another grid; allowed: another study.name")
    replaced = {unit_id(facts) for facts in store.facts() if facts["name"] == model}
    kept = [unit for unit in old.record_units if unit not in replaced]
    runs = [*(run for run in old.study.runs if run.name != model), *new.runs]
    earlier = [note for note in old.study.notes if not note.startswith(f"{model}: ")]
    notes = list(dict.fromkeys([*earlier, *new.notes]))
    amounts = [] if len(old.study.amounts) != len(runs) else old.study.amounts
    study = replace(old.study, runs=runs, notes=notes, amounts=amounts)
    return ReportInputs(study, [*kept, *units], old.text_units)
