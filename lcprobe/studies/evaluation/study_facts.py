"""Facts for the report besides the records: the runs, how they were matched and tuned, an example of each task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.config import to_yaml
from lcprobe.files import read_json
from lcprobe.lengths import schedule_text
from lcprobe.models.config import AMOUNTS
from lcprobe.models.matching import amount_of, mismatch_of
from lcprobe.models.parts import parts_of
from lcprobe.probing.grid import TaskSet, settings_text
from lcprobe.probing.units import Plan, Unit
from lcprobe.probing.unmade import first_made
from lcprobe.schema import plain
from lcprobe.studies.evaluation.groups import GroupNames, group_names, group_notes
from lcprobe.studies.evaluation.session import Biases, Session
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.costs import Sized, size_rows, training_flops
from lcprobe.studies.status import read_status, versions
from lcprobe.studies.tracking import read_metrics
from lcprobe.studies.training.lr_sweep import spread_of
from lcprobe.tasks.episode import Factors
from lcprobe.tasks.text.templates import NO_TEMPLATE
from lcprobe.training_data import read_training_data


def facts_of(session: Session, biases: Biases, engine_notes: Mapping[str, str]) -> StudyFacts:
    """Everything that the report prints besides the records."""
    targets = session.targets
    names = {target.name: own for target, own in zip(targets, group_names(targets), strict=True)}
    runs = [
        replace(
            _run_facts(variant, names[variant.target.name], targets),
            tokenizer=session.reader_of(variant).tasks.tokenizer.identity[:16],
            biases=biases.get(variant.name, []),
        )
        for variant in session.variants
    ]
    folder = session.targets[0].run_folder
    sweep_file = folder.parent / "sweep_used.json" if folder else None
    sweep = read_json(sweep_file) if sweep_file and sweep_file.is_file() else []
    groups = list(dict.fromkeys(row["group"] for row in sweep))
    notes = [*session.notes, *group_notes(targets), *(f"{name}: {note}" for name, note in engine_notes.items())]
    notes += [f"{t.name}: {t.source.published.length_note}" for t in targets if t.source.published is not None]
    if session.config.probe.precision == "bf16":
        notes.append("all models were probed in bfloat16 autocast with float32 logits (probe.precision=bf16)")
    decoded = [variant.name for variant in session.variants if variant.compat.mamba_ssm_conv_bug]
    if decoded:
        notes.append(
            f"{', '.join(decoded)}: attention with convolution is decoded with the wrong cache of mamba_ssm "
            "(compat.mamba_ssm_conv_bug=true)"
        )
    notes += _template_note(session.variants)
    notes += [_spread_note(spread_of(sweep, group)) for group in groups]
    rows = [row for unit in session.plan.units for row in unit.rows()]
    by = _in_common(target.config.match.by for target in targets) or "params"
    amounts = [_amount(variant.target, by) for variant in session.variants]
    return StudyFacts(
        name=session.config.study.name,
        runs=runs,
        tasks=[task_facts(session.tasks, session.plan, name) for name in session.tasks.by_name],
        matching=size_rows([_sized(target) for target in session.targets]),
        mismatch=mismatch_of(amounts),
        matched=AMOUNTS[by],
        amounts=amounts,
        sweep=sweep,
        versions=versions() | {"corpus": session.data.manifest["corpus_digest"][:16]},
        config_yaml=to_yaml(replace(session.config, grid={})),
        expected_cells=rows,
        equal_length=session.config.probe.equal_length,
        notes=notes,
        unread=session.unread,
        held_equal=_in_common(target.config.match.training for target in session.targets),
        batch_in=_in_common(target.config.match.batch for target in session.targets),
    )


def _amount(target: ProbeTarget, by: str) -> float:
    """What a run's model has of what is matched; of one that is not of our mixers, its parameters."""
    config = target.config
    if target.source.meta_model(config) is None:
        return float(target.source.cost(config).params)
    return amount_of(parts_of(config.model), config.model, by, config.train.context_length)


def _in_common(values: Iterable[str]) -> str:
    """The value that all have; "" where they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""


def _run_facts(variant: Variant, names: GroupNames, targets: Sequence[ProbeTarget]) -> RunFacts:
    target = variant.target
    status = read_status(target.run_folder) if target.run_folder else {}
    progress, published = target.source.progress, target.source.published
    cost = target.source.cost(target.config)
    extension = target.config.train.extend
    metrics = read_metrics(target.run_folder / "metrics.csv") if target.run_folder else []
    return RunFacts(
        name=variant.name,
        group=names.group + variant.tag,
        layout=target.source.layout(target.config),
        seed=target.config.seed,
        context_length=target.config.train.context_length,
        params=cost.params,
        embedding_params=cost.embedding,
        tokens=progress.tokens,
        lr=None if published else target.config.train.lr,
        seconds=progress.seconds,
        data_digest=progress.digest,
        skipped_steps=progress.skipped,
        checkpoint=target.source.digest,
        tuned="published" if published else status.get("tuned", "not swept"),
        metrics=metrics if variant.method is None else [],
        extension=variant.label,
        base=variant.base,
        template=variant.template.name,
        not_causal=variant.not_causal,
        length_schedule=schedule_text(target.config.train.length_schedule, target.config.train.context_length),
        training_data=read_training_data(target.run_folder) if target.run_folder else None,
        started_from=_started_from(target, targets),
        tokens_before=status.get("from_tokens", 0),
        trained_extension="" if extension is None else extension.label,
        architecture=names.architecture + variant.tag,
        batch_tokens=0 if published else target.config.train.batch_tokens,
        flops=training_flops(cost, progress.tokens),
        published=target.source.published.paper if target.source.published and variant.method is None else "",
    )


def _started_from(target: ProbeTarget, targets: Sequence[ProbeTarget]) -> str:
    """What a run started from: its name where it is probed too, or is of the same study; else its folder."""
    start = target.config.train.from_
    if start is None:
        return ""
    folder = Path(start)
    for other in targets:
        if other.run_folder is not None and other.run_folder.resolve() == folder.resolve():
            return other.name
    study = Path(target.config.study.folder) / target.config.study.name
    return folder.name if folder.parent == study else start


def _sized(target: ProbeTarget) -> Sized:
    source = target.source
    cost, published = source.cost(target.config), source.published is not None
    return Sized(target.name, target.config, cost, source.progress.tokens, published)


def task_facts(tasks: TaskSet, plan: Plan, name: str) -> TaskFacts:
    """Facts about a task of a plan, with an example."""
    task = tasks.by_name[name]
    unit: Unit | None = next((u for u in plan.units if u.task == name and u.control == "none"), None)
    example, chance = "", None
    if unit is not None:
        formats, length = unit.formats, unit.length
        episodes = first_made(lambda index: task.episode(Factors(formats, length, 0.5, index)), 8)
        query, decode = episodes[0].queries[0], tasks.tokenizer.decode
        ids = episodes[0].sequence(query)
        example = f"{decode(ids[: query.start])} -> {decode(ids[query.start :])}"
        chances = {q.chance for episode in episodes for q in episode.queries}
        chance = chances.pop() if len(chances) == 1 and unit.formats.haystack != "needles" else None
    settings, controls = settings_text(plain(task.config)), task.axes.controls
    return TaskFacts(name, settings, chance, task.has_keys, example, tasks.code(name), controls)


def _template_note(variants: Sequence[Variant]) -> list[str]:
    """Which models were probed with which template, where that differs or is not none."""
    of: dict[str, list[str]] = {}
    for variant in variants:
        of.setdefault(variant.template.name, []).append(variant.name)
    if set(of) == {NO_TEMPLATE.name}:
        return []
    texts = "; ".join(f"{template}: {', '.join(names)}" for template, names in of.items())
    why = " Their scores differ by it too" if len(of) > 1 else ""
    return [f"prompt templates (probe.templates): {texts}.{why}" if why else f"prompt templates: {texts}"]


def _spread_note(spread: dict[str, Any]) -> str:
    edge = "; the best rate is at the edge of the grid" if spread["at edge"] else ""
    losses = f"answer loss {spread['best loss']:.3f}, worst rate {spread['worst loss']:.3f}"
    near = f"within 10 % of the best: {spread['rates within 10 % of best']}"
    return f"learning rate of {spread['group']}: best {spread['best lr']:g} ({losses}); {near}{edge}"
