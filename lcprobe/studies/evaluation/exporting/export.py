"""Samples to other harnesses: implements `lcprobe export`."""

from dataclasses import asdict
from pathlib import Path

from lcprobe.config import Config, to_yaml
from lcprobe.data.prepare import prepare
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.files import write_json
from lcprobe.probing.external import export
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.sharing.work import unit_facts
from lcprobe.probing.units import Unit
from lcprobe.probing.unmade import NotMade
from lcprobe.studies.console import say
from lcprobe.studies.evaluation.readers import materials_of
from lcprobe.studies.evaluation.session import no_cell
from lcprobe.studies.evaluation.study_facts import task_facts
from lcprobe.studies.planning.text_fits import check_text_fits, naming
from lcprobe.studies.runtime import set_up_logging
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.templates import NAMED_TEMPLATES, NO_TEMPLATE, PromptTemplate
from lcprobe.version import VERSION
from lcprobe.words import counted

MANIFEST = "export.json"


def export_grid(config: Config) -> Path:
    """Write the grids of a config to <study>/export as `probing.external.export` describes; returns the folder. The
    corpus is prepared first where it is not.

    Raises ConfigError without tasks and grids, for several templates and without a corpus, EpisodeError where no cell
    can be built.
    """
    set_up_logging()
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError(
            "probe.grids", "nothing to export", "tasks and grids in the config (configs/probe has some)"
        )
    folder = Path(config.study.folder) / config.study.name / "export"
    tasks = TaskSet(config.probe, _materials(config).with_template(_template(config)))
    with naming(config.data.tokenizer):
        plan = tasks.plan(config.probe.grids, config.train.context_length)
    if not plan.units:
        raise no_cell(plan.notes)
    notes, written, budgets = list(plan.notes), [], dict[Unit, int]()
    for unit in plan.units:
        try:
            samples = export.samples_of(unit, tasks, config.probe.export.bos)
        except (NotMade, EpisodeError) as error:
            notes.append(str(error))
            continue
        path = export.write_samples(folder, unit, samples)
        budgets[unit] = export.budget(unit, tasks, samples)
        facts = unit_facts(unit, tasks, export.NOBODY, "external")
        facts = {name: value for name, value in facts.items() if name not in export.NOBODY.facts}
        written.append({"file": path.name, "samples": len(samples), "facts": facts, "cells": unit.rows()})
    if not written:
        raise no_cell(notes)
    tags = export.write_harness_tasks(folder, config.study.name, budgets)
    inspect = export.write_inspect(folder, config.study.name, max(budgets.values()))
    manifest = {
        "lcprobe": VERSION,
        "study": {"name": config.study.name, "folder": config.study.folder},
        "tokenizer": {"name": config.data.tokenizer, "bos": config.data.bos, "identity": tasks.tokenizer.identity},
        "context_length": config.train.context_length,
        "template": tasks.materials.template.name,
        "config": to_yaml(config),
        "tasks": [asdict(task_facts(tasks, plan, name)) for name in tasks.by_name],
        "units": written,
        "notes": notes,
    }
    write_json(folder / MANIFEST, manifest)
    total = sum(unit["samples"] for unit in written)
    say(
        *(f"left out: {note}" for note in notes),
        f"{counted(total, 'sample')} of {counted(len(written), 'unit')}: {folder / 'samples'}",
        f"lm-eval: lm_eval --include_path {folder / 'lm_eval'} --tasks {' or '.join(tags)} --log_samples ...",
        f"inspect_ai: inspect eval {inspect} ...",
        f"back: lcprobe score {folder} OUTPUTS ... --model NAME",
    )
    return folder


def _materials(config: Config) -> Materials:
    """What evaluation makes its samples of: the same cells are the same samples then."""
    check_text_fits(config, training=False)  # before anything is prepared
    return materials_of(prepare(config.data), config)


def _template(config: Config) -> PromptTemplate:
    """The one template of the samples: a harness has its own way to use a model's chat template."""
    names = config.probe.templates
    if len(names) != 1 or names[0] in ("chat", "paper"):
        allowed = "one of none, instruction, rwkv (harnesses apply a model's own chat template themselves)"
        raise ConfigError("probe.templates", names, allowed)
    return NAMED_TEMPLATES.get(names[0], NO_TEMPLATE)
