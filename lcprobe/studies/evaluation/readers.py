"""What the probed models read: for each tokenizer and prompt template its corpus, its tasks and its units of work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lcprobe.config import Config
from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import Prepared, find_prepared, manifest_of, prepare
from lcprobe.errors import require
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.grid import TaskSet, task_sets
from lcprobe.probing.units import Plan, Unit
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant
from lcprobe.studies.planning.preflight import check_grids_fit
from lcprobe.studies.planning.text_fits import check_text_fits, corpus_splits, naming, over_words
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.templates import PromptTemplate
from lcprobe.tasks.text.tokenizer import load_tokenizer
from lcprobe.training.checkpoint import check_same_corpus


@dataclass(frozen=True)
class Reader:
    """One tokenizer of a session with one template. name: `data.tokenizer` as configured; plan: the same cells as of
    the others."""

    name: str
    data: Prepared
    tasks: TaskSet
    plan: Plan

    def longest(self, unit: Unit) -> int:
        """Tokens of the longest episode of a unit, which are more or fewer than its length where the text is equal;
        builds them there, if they can be made."""
        if self.tasks.same_text is None or self.tasks is self.tasks.siblings[0] or not self.tasks.can_make(unit):
            return unit.length
        return max(episode.reach for episode in self.tasks.episodes(unit))


def tokenizer_of(target: ProbeTarget) -> str:
    """The identity of a target's tokenizer."""
    return load_tokenizer(target.config.data.tokenizer, target.config.data.bos).identity


class ReaderKey(NamedTuple):
    """What tells readers apart. tokenizer: its identity."""

    tokenizer: str
    template: PromptTemplate


def reader_key(variant: Variant) -> ReaderKey:
    """The reader of a variant."""
    return ReaderKey(tokenizer_of(variant.target), variant.template)


def probed_materials(target: ProbeTarget, config: Config) -> Materials:
    """What one model is probed on, without a template. config: as of `materials_of`. Raises DataError where it was
    trained on another text."""
    own, progress, path = target.config.data, target.source.progress, target.source.path
    check_same_corpus(path, progress, manifest_of(own, progress.corpus_digest))
    data = prepare(own, trained_on=progress.corpus_digest)
    check_same_corpus(path, progress, data.manifest)
    return materials_of(data, config)


def check_readers_fit(variants: Sequence[Variant], config: Config, context_lengths: Sequence[int]) -> Plan | None:
    """Plan the grids over common words in place of the corpus, for every reader; before anything is prepared.

    Returns the plan of the first, None where its lengths are not those of all models. Raises ConfigError for a
    multiple that is no whole number of tokens and for templates around what is to be the same text, EpisodeError,
    naming the tokenizer, for formats, a text or a template that it cannot represent and for a length in tokens that
    is below the least of a task.
    """
    settings = _settings(variants)
    config.probe.check_lengths(context_lengths)
    if config.probe.equal_length == "text" and len(settings) > 1:
        named = {key.template.name for key in settings if not key.template.is_none}
        allowed = "[none] with probe.equal_length=text: templates are other texts"
        require("probe.templates", sorted(named), not named, allowed)
    materials = [over_words(own.tokenizer, own.bos).with_template(key.template) for key, own in settings.items()]
    sets = task_sets(config.probe, materials, _names(settings))
    counted = sets[:1] if config.probe.equal_length == "text" else sets
    plans = []
    for tasks, own in zip(counted, settings.values(), strict=False):
        with naming(own.tokenizer):
            plans.append(check_grids_fit(tasks, context_lengths))
    return plans[0] if len(plans) == len(sets) else None


def plans_over_words(
    variants: Sequence[Variant], config: Config, context_lengths: Sequence[int]
) -> dict[ReaderKey, tuple[TaskSet, Plan]]:
    """Tasks and units of every reader over common words in place of the corpus, which is not needed then. Raises
    EpisodeError for grids without a cell."""
    settings = _settings(variants)
    materials = [over_words(own.tokenizer, own.bos).with_template(key.template) for key, own in settings.items()]
    sets = task_sets(config.probe, materials, _names(settings))
    plans = _plans(sets, _names(settings), config, context_lengths)
    return dict(zip(settings, zip(sets, plans, strict=True), strict=True))


def open_readers(
    variants: Sequence[Variant], config: Config, context_lengths: Sequence[int]
) -> dict[ReaderKey, Reader]:
    """A reader for each tokenizer and template of the variants, the first one's first. Raises EpisodeError where a
    task does not fit a tokenizer or the corpus, DataError where a target was trained on another corpus; both before
    anything is prepared."""
    settings = _settings(variants)
    names, by_tokenizer = _names(settings), {key.tokenizer: own for key, own in settings.items()}
    targets = list({variant.target.name: variant.target for variant in variants}.values())
    # of each tokenizer: where data.max_tokens ends the text, it ends elsewhere with another one
    trained_on = {tokenizer_of(t): t.source.progress.corpus_digest for t in reversed(targets)}
    manifests = {key: manifest_of(own, trained_on[key]) for key, own in by_tokenizer.items()}
    for target in targets:  # before another text is prepared
        check_same_corpus(target.source.path, target.source.progress, manifests[tokenizer_of(target)])
    for key, own in by_tokenizer.items():
        if find_prepared(own, trained_on[key]) is None:
            check_text_fits(replace(config, data=own), training=False)
    prepared = {key: prepare(own, trained_on=trained_on[key]) for key, own in by_tokenizer.items()}
    for target in targets:
        check_same_corpus(target.source.path, target.source.progress, prepared[tokenizer_of(target)].manifest)
    cache = EpisodeCache(Path(targets[0].config.data.folder) / "episodes", round(config.probe.cache_gb * 1e9))
    plain = {key: materials_of(data, config) for key, data in prepared.items()}
    materials = [plain[key.tokenizer].with_template(key.template) for key in settings]
    sets = task_sets(config.probe, materials, names, cache if cache.limit else None)
    plans = _plans(sets, names, config, context_lengths)
    data = [prepared[key.tokenizer] for key in settings]
    readers = [Reader(*parts) for parts in zip(names, data, sets, plans, strict=True)]
    return dict(zip(settings, readers, strict=True))


def materials_of(data: Prepared, config: Config) -> Materials:
    """What episodes that are evaluated are made of. The corpus is part of it whatever the haystacks are: keys and
    values are drawn so that they do not occur in it, so without it they would be other samples. Raises EpisodeError
    where haystacks are to be cut from it and cannot be."""
    materials = data.materials("probe")
    if corpus_splits(config, training=False):
        materials.stream("corpus")
    return materials


def _settings(variants: Sequence[Variant]) -> dict[ReaderKey, DataConfig]:
    """The data of the first target that was trained here, or of the first of all, under each tokenizer: the corpus is
    one, which checkpoints are compared with."""
    targets = [variant.target for variant in variants]
    trained = (target for target in targets if target.source.published is None)
    first, made = next(trained, targets[0]).config.data, {}
    for variant in variants:
        own = variant.target.config.data
        made.setdefault(reader_key(variant), replace(first, tokenizer=own.tokenizer, bos=own.bos))
    return made


def _plans(
    sets: Sequence[TaskSet], names: Sequence[str], config: Config, context_lengths: Sequence[int]
) -> list[Plan]:
    """The plan of each set of tasks: the cells that exist for all, so that no two means are over different cells."""
    grids = config.probe.grids
    if config.probe.equal_length == "text":
        return [sets[0].plan(grids, *context_lengths)] * len(sets)
    plans = [tasks.plan(grids, *context_lengths) for tasks in sets]
    if len(plans) == 1:
        return plans
    shared = [unit for unit in plans[0].units if all(unit in plan.units for plan in plans[1:])]
    notes: dict[str, list[str]] = {}
    for plan, name in zip(plans, names, strict=True):
        for note in plan.notes:
            notes.setdefault(note, []).append(name)
    texts = [
        note if len(under) == len(plans) else f"{note} with {', '.join(under)}, left out for all"
        for note, under in notes.items()
    ]
    return [replace(plan, units=shared, notes=texts) for plan in plans]


def _names(settings: Mapping[ReaderKey, DataConfig]) -> list[str]:
    """`data.tokenizer` of each, with its BOS where that tells two apart, and its template where there is one."""
    bos_of: dict[str, set[str | None]] = {}
    for own in settings.values():
        bos_of.setdefault(own.tokenizer, set()).add(own.bos)
    names = []
    for key, own in settings.items():
        more = [f"bos {own.bos}"] if len(bos_of[own.tokenizer]) > 1 else []
        more += [] if key.template.is_none else [f"template {key.template.name}"]
        names.append(f"{own.tokenizer} ({', '.join(more)})" if more else own.tokenizer)
    return names
