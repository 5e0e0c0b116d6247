"""The plan of a study: grid -> runs, each with a stable name, matched sizes and its cost.

    grid:
      seed: [0, 1]                         an axis of values: its name is a key of the config
      arch:                                an axis of labels: any settings under each
        mamba2: {model: {layout: mamba2 x 4}, train: {lr: 0.01}}
        transformerpp: {model: {layout: attention+mlp x 2}}

The product of the axes is the study, without duplicate runs and without settings that do not apply to a model. Models
are matched over the whole study, and each is built once on the meta device to check it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcprobe.config import Config, SweepConfig, parse
from lcprobe.data.phases import phases
from lcprobe.errors import ConfigError, Said, listed, require
from lcprobe.files import check_name
from lcprobe.merging import merge
from lcprobe.models.layout import layout_name
from lcprobe.models.matching import Matched, match, mismatch_of
from lcprobe.schema import resolve
from lcprobe.studies.planning.applicable import Applied, applicable
from lcprobe.studies.planning.axes import ONLY_RUN, Axis, Labels, axes_of, product, values_of
from lcprobe.studies.planning.continued import with_extension
from lcprobe.studies.planning.duplicates import Draft, RunGroup, deduplicate, settings_of
from lcprobe.studies.planning.equal_budgets import (
    budget,
    budget_notes,
    kept_keys,
    references,
    training_length,
    with_equal_flops,
)
from lcprobe.studies.planning.initial_weights import initial_checkpoint, source_run, starting_from, topological_order
from lcprobe.studies.planning.meta_checks import MetaModels, check_start
from lcprobe.studies.planning.texts import text_trained_on
from lcprobe.tasks.text.haystack import require_word_starts
from lcprobe.tasks.text.hub_tokenizers import known_vocabulary, planned_vocabulary
from lcprobe.tasks.text.tokenizer import load_tokenizer, tokenizer_here


@dataclass(frozen=True)
class PlannedRun:
    """One run: its name, its model's name (`group`), its resolved config, and its sizes and cost at the training
    length."""

    name: str
    group: str
    config: Config
    matched: Matched
    sets_lr: bool = False
    """Whether the config sets train.lr, instead of leaving it at its default."""
    trained_on: str = ""
    """Digest of the text of the study's trained runs, where it is not at its place and what was prepared of it is
    enough."""
    axes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """Its value on each axis of the grid that has an effect on it, by the axis' name."""

    @property
    def folder(self) -> Path:
        """The run's folder, runs/<study>/<run>."""
        return Path(self.config.study.folder) / self.config.study.name / self.name


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study, with matched models."""

    config: Config
    runs: list[PlannedRun]
    mismatch: float
    notes: tuple[str, ...] = ()
    """One line for each duplicate and each run that was left out, with the reason."""

    @property
    def folder(self) -> Path:
        """The study's folder, runs/<study>."""
        return Path(self.config.study.folder) / self.config.study.name


def make_plan(mapping: Mapping[str, Any], fetch: bool = True) -> StudyPlan:
    """Expand the grid, match the models, check every run. fetch: whether tokenizers are fetched that are on the hub
    and not here; else their vocabularies are those that are known of them. Raises ConfigError at the first
    mistake."""
    base = parse(mapping)
    axes = axes_of(base.grid)
    _check_choices(base, lengths=not any(axis.sets_training_length for axis in axes))
    drafts = _drafts(mapping, axes, fetch)
    order = topological_order({labels: draft.source for labels, draft in drafts.items()})
    for labels in order:
        draft = drafts[labels]
        with _of(labels):
            source = None if draft.source is None else drafts[draft.source].config
            drafts[labels] = replace(draft, config=with_extension(draft.config, source))
    groups_of_runs, left_out = deduplicate([drafts[labels] for labels in order], axes)
    named = [(run, check_name("grid", run.name or base.study.run or ONLY_RUN)) for run in groups_of_runs]
    _check_shared([(name, run.draft.config) for run, name in named])
    one = named[0][0].draft.config.model
    only = base.study.group or base.study.run or layout_name(one.layout, one.attn_layer_idx)
    groups = {name: _group(run, axes) or only for run, name in named}
    architectures = {name: _architecture(run, axes) or base.study.architecture or groups[name] for run, name in named}
    architectures = _set_apart({name: run.draft.config for run, name in named}, architectures, groups)
    # seeds do not affect sizes: match one run of each group
    models = {groups[name]: run.draft.config.model for run, name in named}
    rules = base.match
    if isinstance(rules.budget, str) and rules.budget not in models:  # a label stands for the first model that has it
        models_of_label = [
            groups[name] for run, name in named if any(rules.budget in _parts(m, axes) for m in run.members)
        ]
        if not models_of_label and all(axis.of_seeds for axis in axes):
            given = Said(f"{rules.budget!r} names no model, as the grid has no axis of models")
            raise ConfigError("match.budget", given, "match.budget=null with all sizes given, or a number")
        rules = replace(rules, budget=models_of_label[0] if models_of_label else rules.budget)
    lengths = {groups[name]: run.draft.config.train.context_length for run, name in named}
    matched = match(models, rules, lengths)
    name_of = {labels: name for run, name in named for labels in run.members}
    starts = {name: name_of[run.draft.source] for run, name in named if run.draft.source is not None}
    runs = [
        replace(
            _resolved(run.draft, name, groups[name], architectures[name], matched[groups[name]], starts.get(name)),
            axes=values_of(run.labels, axes),
        )
        for run, name in named
    ]
    labels_of = {name: run.draft.labels for run, name in named}
    if rules.training == "flops":
        runs = _with_equal_flops(runs, {name: run.draft for run, name in named}, name_of)
    runs = _with_texts(runs, base, labels_of)
    _check_runs(runs, starts, labels_of, base.study.lr_sweep)
    notes = [f"{groups[name]}: {run.note}" for run, name in named if run.note]
    notes += [
        f"{groups[name]}: train.extend does not apply: no attention" for run, name in named if run.draft.not_extended
    ]
    notes += [f"left out, {reason}: {', '.join(map('-'.join, labels))}" for reason, labels in left_out.items()]
    notes += budget_notes({name: run.draft for run, name in named})
    mixed = [axis.name for axis in axes if axis.mixes_model_and_training_length]
    notes += [
        f"grid.{name} sets layouts and training lengths: lengths are compared over an axis of their own"
        for name in mixed
    ]
    mismatch = mismatch_of([m.amount for m in matched.values()])
    return StudyPlan(base, runs, mismatch, tuple(dict.fromkeys(notes)))


def _drafts(mapping: Mapping[str, Any], axes: Sequence[Axis], fetch: bool) -> dict[Labels, Draft]:
    """All runs of the grid before matching, each with the budget of its training length."""
    applied: dict[Labels, tuple[Applied, dict[str, Any]]] = {}
    for labels, patches in product(axes):
        with _of(labels):
            applied[labels] = _merged(mapping, patches)
    source = references({labels: training_length(merged) for labels, (_, merged) in applied.items()}, axes)
    drafts: dict[Labels, Draft] = {}
    for labels in sorted(applied, key=lambda labels: source[labels] != labels):  # references first
        reference = None if source[labels] == labels else drafts[source[labels]]
        with _of(labels):
            drafts[labels] = _draft(*applied[labels], labels, axes, reference, fetch)
    return {labels: drafts[labels] for labels in applied}


def _merged(mapping: Mapping[str, Any], patches: list[dict[str, Any]]) -> tuple[Applied, dict[str, Any]]:
    """The settings of a run's levels that apply to it, and its whole config as a mapping."""
    applied = applicable(mapping, patches)
    merged: dict[str, Any] = {**mapping, "grid": {}}
    for patch in applied.patches:
        merged = merge(merged, patch)
    return applied, merged


def _draft(
    applied: Applied,
    mapping: dict[str, Any],
    labels: Labels,
    axes: Sequence[Axis],
    reference: Draft | None,
    fetch: bool,
) -> Draft:
    """One run of the grid, before matching. reference: the run at the shortest training length, if it is another."""
    kept = kept_keys(applied.patches)
    given = mapping.get("train", {})
    if reference is not None:
        own = {key: given[key] for key in kept}
        train = budget(reference.config.train, training_length(mapping), reference.config.match, own)
        mapping = {**mapping, "train": {**given, **train}}
    config = parse(mapping)
    _check_choices(config)
    model = config.model
    vocab_size = _vocabulary(config, fetch)
    if model.vocab_size is not None and model.vocab_size < vocab_size:
        raise ConfigError("model.vocab_size", model.vocab_size, f">= the tokenizer's {vocab_size}")
    extends = config.train.extend is not None  # then encodings are built for the length that is extended
    known = {
        "vocab_size": model.vocab_size or vocab_size,
        "context_length": model.context_length or (None if extends else config.train.context_length),
    }
    config = replace(config, model=replace(model, **known))
    source = source_run(config, labels, axes)
    return Draft(
        labels,
        config,
        settings_of(config, source is not None),
        applied.ignored_axes,
        applied.partial_axes,
        applied.reason,
        source,
        sets_lr="lr" in given,
        not_extended=applied.not_extended,
        reference=labels if reference is None else reference.labels,
        kept=kept,
    )


def _vocabulary(config: Config, fetch: bool) -> int:
    """How many ids a run's tokenizer has. Raises ConfigError for one that cannot be used, or is neither here nor
    known."""
    data = config.data
    tokenizer = load_tokenizer(data.tokenizer, data.bos) if fetch else tokenizer_here(data.tokenizer, data.bos)
    if tokenizer is not None:
        require_word_starts(tokenizer)
        return tokenizer.vocab_size
    return known_vocabulary(data.tokenizer) or config.model.vocab_size or planned_vocabulary(data.tokenizer)


def _with_equal_flops(
    runs: list[PlannedRun], drafts: Mapping[str, Draft], name_of: Mapping[Labels, str]
) -> list[PlannedRun]:
    """The runs with budgets of as many FLOPs as that of their reference. drafts: by the runs' names."""
    by_name = {run.name: run for run in runs}
    changed = []
    for run in runs:
        draft = drafts[run.name]
        source = by_name.get(name_of.get(draft.reference, ""))
        if source is None or source is run or "tokens" in draft.kept:
            changed.append(run)
            continue
        with _of(draft.labels):
            train = with_equal_flops(run.config.train, run.matched, source.config.train, source.matched)
        changed.append(replace(run, config=replace(run.config, train=train)))
    return changed


def _with_texts(runs: list[PlannedRun], base: Config, labels: Mapping[str, Labels]) -> list[PlannedRun]:
    """The runs, each with the text that it trains on. Raises ConfigError and DataError as `text_trained_on`."""
    found = []
    for run in runs:
        same = (other.folder for other in runs if other.config.data.corpus == run.config.data.corpus)
        with _of(() if run.config.data.corpus == base.data.corpus else labels[run.name]):
            found.append(replace(run, trained_on=text_trained_on(run.config.data, [run.folder, *same])))
    return found


def _check_runs(
    runs: list[PlannedRun], starts: Mapping[str, str], labels: Mapping[str, Labels], sweep: SweepConfig
) -> None:
    """Check every run's model, the weights that it starts from, and that a sweep has a step for it. starts: by run,
    the run of the study that it starts from."""
    models, shapes = MetaModels(), {}
    for run in runs:
        with _of(labels[run.name]):
            if sweep.lrs:
                batch = run.config.train.batch_tokens
                require(
                    "study.lr_sweep.tokens", sweep.tokens, sweep.tokens >= batch, f">= train.batch_tokens ({batch})"
                )
            shapes[run.name] = models.shapes(run.config)
            if run.name in starts:
                check_start(starts[run.name], shapes[starts[run.name]], shapes[run.name])
            else:
                initial_checkpoint(run.config)


@contextmanager
def _of(labels: Sequence[str]) -> Iterator[None]:
    """Errors of the block name the run of the grid that they are about."""
    try:
        yield
    except ConfigError as error:
        where = f"grid ({listed(labels, ', ')}): {error.key}" if labels else error.key
        raise type(error)(where, error.given, error.allowed, error.near) from None


def _parts(labels: Labels, axes: Sequence[Axis]) -> list[str]:
    """Names by which match.budget may refer to a model: each of its labels, and all of them joined."""
    own = [label for label, axis in zip(labels, axes, strict=True) if not axis.of_seeds]
    return [*own, "-".join(own)]


def _group(run: RunGroup, axes: Sequence[Axis]) -> str:
    """The model's name: the labels without that of the seed."""
    return "-".join(label for label, axis in zip(run.labels, axes, strict=True) if label and not axis.of_seeds)


def _architecture(run: RunGroup, axes: Sequence[Axis]) -> str:
    """The model's name without its training length: the labels of the other axes."""
    kept = (not axis.of_seeds and not axis.sets_training_length for axis in axes)
    return "-".join(label for label, keep in zip(run.labels, kept, strict=True) if label and keep)


def _set_apart(
    configs: Mapping[str, Config], architectures: Mapping[str, str], groups: Mapping[str, str]
) -> dict[str, str]:
    """Architectures by run, where continued runs that share one with another run of equal length and seed (one from
    random weights, or with another extension) are called by their group."""
    keys = {name: (architectures[name], c.train.context_length, c.seed) for name, c in configs.items()}
    count = Counter(keys.values())
    apart = {name for name, c in configs.items() if c.train.from_ is not None and count[keys[name]] > 1}
    return {name: groups[name] if name in apart else one for name, one in architectures.items()}


def _check_choices(config: Config, lengths: bool = True) -> None:
    """Checks that need the chosen classes: settings of mixers and tasks, and (lengths) whether every multiple of the
    training length is whole tokens."""
    resolve(config)
    if not lengths:
        return
    context = config.train.context_length
    phases(config.data.mixture, context, config.train.length_schedule)
    config.probe.check_lengths([context])
    if config.probe.while_training is not None:
        config.probe.while_training.tokens([context], "probe.while_training.lengths")


def _check_shared(runs: list[tuple[str, Config]]) -> None:
    """Raises ConfigError where there is no run, where two have one name, and for sections that must be equal in all
    and differ."""
    if not runs:
        raise ConfigError("grid", "no run that applies to its model", "at least one")
    name, count = Counter(name for name, _ in runs).most_common(1)[0]
    if count > 1:
        raise ConfigError("grid", f"two runs called {name}", "different labels")
    first = runs[0][1]
    for name, config in runs[1:]:
        for key in ("study", "probe", "pe", "compat", "match", "track"):
            if getattr(config, key) != getattr(first, key):
                raise ConfigError(f"grid ({name}): {key}", "a value of its own", "model, data, train and seed only")


def _resolved(
    draft: Draft, name: str, group: str, architecture: str, matched: Matched, start: str | None
) -> PlannedRun:
    """A run whose config reproduces it on its own, from anywhere; `tune` adds what a learning-rate sweep finds.

    start: the run of the study that it starts from.
    """
    config = draft.config if start is None else starting_from(draft.config, start)
    resolved = replace(
        config,
        model=matched.config,
        study=replace(
            config.study, run=name, group=group, architecture=architecture, lr_sweep=SweepConfig(), tuned_by=None
        ),
        match=replace(config.match, budget=None),
        grid={},
    )
    return PlannedRun(name, group, resolved, matched, draft.sets_lr)
