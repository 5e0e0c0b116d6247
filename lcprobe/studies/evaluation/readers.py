"""What the probed models read: for each tokenizer its corpus, its tasks and its units of work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcprobe.config import Config
from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import Prepared, find_prepared, manifest_of, prepare
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.grid import TaskSet, task_sets
from lcprobe.probing.units import Plan, Unit
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.planning.preflight import check_grids_fit
from lcprobe.studies.planning.text_fits import check_text_fits, corpus_splits, naming, over_words
from lcprobe.tasks.text.tokenizer import load_tokenizer
from lcprobe.training.checkpoint import check_same_corpus


@dataclass(frozen=True)
class Reader:
    """One tokenizer of a session. name: `data.tokenizer` as configured; plan: the same cells as of the others."""

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


def check_readers_fit(targets: Sequence[ProbeTarget], config: Config, context_lengths: Sequence[int]) -> Plan | None:
    """Plan the grids over common words in place of the corpus, under every tokenizer; before anything is prepared.

    Returns the plan of the first tokenizer, None where its lengths are not those of all models. Raises ConfigError
    for a multiple that is no whole number of tokens, EpisodeError, naming the tokenizer, for formats or a text that
    it cannot represent and for a length in tokens that is below the least of a task.
    """
    settings = list(_settings(targets).values())
    config.probe.check_lengths(context_lengths)
    sets = task_sets(config.probe, [over_words(own.tokenizer, own.bos) for own in settings], _names(settings))
    counted = sets[:1] if config.probe.equal_length == "text" else sets
    plans = []
    for tasks, own in zip(counted, settings, strict=False):
        with naming(own.tokenizer):
            plans.append(check_grids_fit(tasks, context_lengths))
    return plans[0] if len(plans) == len(sets) else None


def open_readers(targets: Sequence[ProbeTarget], config: Config, context_lengths: Sequence[int]) -> dict[str, Reader]:
    """A reader for each tokenizer of the targets, the first one's first. Raises EpisodeError where a task does not
    fit a tokenizer or the corpus, DataError where a target was trained on another corpus; both before anything is
    prepared."""
    settings = _settings(targets)
    names = _names(list(settings.values()))
    # of each tokenizer: where data.max_tokens ends the text, it ends elsewhere with another one
    trained_on = {tokenizer_of(t): t.source.progress.corpus_digest for t in reversed(targets)}
    manifests = {key: manifest_of(own, trained_on[key]) for key, own in settings.items()}
    for target in targets:  # before another text is prepared
        check_same_corpus(target.source.path, target.source.progress, manifests[tokenizer_of(target)])
    for key, own in settings.items():
        if find_prepared(own, trained_on[key]) is None:
            check_text_fits(replace(config, data=own), training=False)
    prepared = {key: prepare(own, trained_on=trained_on[key]) for key, own in settings.items()}
    for target in targets:
        check_same_corpus(target.source.path, target.source.progress, prepared[tokenizer_of(target)].manifest)
    cache = EpisodeCache(Path(targets[0].config.data.folder) / "episodes", round(config.probe.cache_gb * 1e9))
    materials = [data.materials("probe") for data in prepared.values()]
    for own in materials if corpus_splits(config, training=False) else ():
        own.stream("corpus")  # raises where haystacks cannot be cut from it
    sets = task_sets(config.probe, materials, names, cache if cache.limit else None)
    plans = _plans(sets, names, config, context_lengths)
    readers = [Reader(*parts) for parts in zip(names, prepared.values(), sets, plans, strict=True)]
    return dict(zip(settings, readers, strict=True))


def _settings(targets: Sequence[ProbeTarget]) -> dict[str, DataConfig]:
    """The data of the first target that was trained here, or of the first of all, under each tokenizer: the corpus is
    one, which checkpoints are compared with."""
    trained = (target for target in targets if target.source.published is None)
    first, made = next(trained, targets[0]).config.data, {}
    for target in targets:
        own = target.config.data
        made.setdefault(tokenizer_of(target), replace(first, tokenizer=own.tokenizer, bos=own.bos))
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


def _names(settings: Sequence[DataConfig]) -> list[str]:
    """`data.tokenizer` of each, with its BOS where that alone tells two apart."""
    names = [own.tokenizer for own in settings]
    return [f"{s.tokenizer} (bos {s.bos})" if names.count(s.tokenizer) > 1 else s.tokenizer for s in settings]
