"""From grids to units of work: which cells exist, which samples each has, and which lengths are too short."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lcprobe.errors import ConfigError, EpisodeError, listed, unknown_name
from lcprobe.files import digest_json
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.same_text import SameText
from lcprobe.probing.substring import Continuation, budget_of
from lcprobe.probing.task_code import task_code
from lcprobe.probing.units import Plan, TooFewTokens, TooManyTokens, Unit, UnitKey
from lcprobe.probing.unmade import NotMade, first_made, made_all
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.episode import SUITE, Episode, Factors, Formats, Query
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.parts.episode_text import EpisodeText, episode_text
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer

MAX_MEMORY_TOKENS = 1 << 26
"""Tokens of episodes kept in memory for the next model: a quarter of a gigabyte."""
MAX_DISK_LENGTH = 1 << 15
"""Longest episodes kept on disk. Longer ones take several times as long to write as to build, and about as long to
read: at 128K tokens most of that goes into their digest and into allocating memory (`python -m benchmarks
generation`)."""
N_SAME_TEXT_SAMPLES = 4
"""Samples that are encoded for every tokenizer before a cell of the same text is planned."""
LENGTH_TO_TELL = 256
"""Tokens in which a haystack shows most of its characters."""
N_FIT_SAMPLES = 24
"""Samples that are tried before a cell is planned; the others are checked when they are built."""
N_LONG_SAMPLES = 8
"""Samples that are built at the longest lengths before these are planned."""
MAX_LONG_TOKENS = 1 << 25
"""Tokens of these samples, where one of them is not longer."""


class TaskSet:
    """The tasks of a probe config over one set of materials, by name. Raises ConfigError for a task that cannot be
    created.
    """

    def __init__(
        self,
        config: ProbeConfig,
        materials: Materials,
        cache: EpisodeCache | None = None,
        same_text: SameText | None = None,
    ):
        """materials: of the models that are probed. same_text: tokenizers that all read the same text, made of the
        materials of the first; see `task_sets`."""
        self.config, self.materials, self.cache, self.same_text = config, materials, cache, same_text
        self.siblings: Sequence[TaskSet] = [self]
        made_of = materials if same_text is None else same_text.reference
        self._choices = config.tasks
        self.by_name: dict[str, Task] = {name: choice.create(made_of) for name, choice in config.tasks.items()}
        for name, task in self.by_name.items():
            for factor, level in self._choices[name].formats.items():
                if level not in task.axes.levels(factor):
                    raise unknown_name(f"probe.tasks.{name}.formats.{factor}", level, task.axes.levels(factor))
        self._least: dict[tuple[str, Formats, str], int] = {}
        self._unbuilt: dict[Unit, str | None] = {}
        self.not_made: dict[Unit, NotMade] = {}
        """Units that were asked for and cannot be made."""
        self._in_memory: dict[Unit, list[Episode]] = {}
        self._texts: dict[str, EpisodeText] = {}
        self._tokens_in_memory = 0

    def episodes(self, unit: Unit) -> list[Episode]:
        """The episodes of `unit.factors()`: from memory, from disk, or built. Every model gets the same ones. Raises
        NotMade where one of them cannot be made."""
        if unit in self.not_made:
            raise self.not_made[unit]
        episodes = self._in_memory.get(unit)
        if episodes is not None:
            return episodes
        cache = self.cache if unit.length <= MAX_DISK_LENGTH else None
        episodes = None if cache is None else cache.read(self.facts(unit))
        if episodes is not None:
            self._keep(unit, episodes)
            return episodes
        try:
            built = self._build(unit)
        except NotMade as error:
            for sibling in self.siblings:
                sibling.not_made[unit] = error
            raise
        for sibling, own in built:  # each text is built once for all tokenizers
            if cache is not None:
                cache.write(sibling.facts(unit), own)
            sibling._keep(unit, own)
        return next(own for sibling, own in built if sibling is self)

    def _build(self, unit: Unit) -> list[tuple["TaskSet", list[Episode]]]:
        """The episodes of a unit, for every set of tasks that has the same text."""
        task, same_text, name = self.by_name[unit.task], self.same_text, self.tokenizer.name
        if same_text is None:
            return [(self, made_all(task.episode, unit.factors(), unit.label, name))]
        samples = made_all(lambda factors: same_text.episodes(task, factors), unit.factors(), unit.label, name)
        return [(sibling, [sample[i] for sample in samples]) for i, sibling in enumerate(self.siblings)]

    def episode(self, task: str, factors: Factors) -> Episode:
        """One episode, built again: of equal factors the same as in `episodes`. Raises EpisodeError where it cannot
        be made, KeyError for an unknown task."""
        made = self.by_name[task]
        if self.same_text is None:
            return made.episode(factors)
        number = next(i for i, sibling in enumerate(self.siblings) if sibling is self)
        return self.same_text.episodes(made, factors)[number]

    def can_make(self, unit: Unit) -> bool:
        """Whether every sample of a unit can be made; else `not_made` has the reason."""
        try:
            self.episodes(unit)
        except NotMade:
            return False
        return True

    def _keep(self, unit: Unit, episodes: list[Episode]) -> None:
        tokens = sum(len(episode.ids) for episode in episodes)
        if unit not in self._in_memory and self._tokens_in_memory + tokens <= MAX_MEMORY_TOKENS:
            self._in_memory[unit] = episodes
            self._tokens_in_memory += tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the episodes."""
        return self.materials.tokenizer

    @property
    def template_facts(self) -> dict[str, Any]:
        """The prompt template, where there is one."""
        template = self.materials.template
        return {} if template.is_none else {"template": [template.before, template.between]}

    def text_of(self, episode: Episode) -> EpisodeText:
        """The characters of an episode; decoded once for all models."""
        digest = episode.digest
        if digest not in self._texts:
            self._texts[digest] = episode_text(episode, self.tokenizer)
        return self._texts[digest]

    def forget(self) -> None:
        """Drop the episodes in memory, where no other model will need them."""
        self._in_memory.clear()
        self._texts.clear()
        self._tokens_in_memory = 0

    def facts(self, unit: Unit) -> dict[str, Any]:
        """Everything that the episodes of a unit depend on: the task's settings, but not its name."""
        same_text = {} if self.same_text is None else {"same_text": self.same_text.facts}
        return (
            same_text
            | self.template_facts
            | {
                "task": self._choices[unit.task].settings,
                "suite": SUITE,
                "code": self.code(unit.task),
                "made_of": self.digest(unit.task, unit.formats.haystack),
                "bos": self.tokenizer.bos_id,
                "cells": [{name: value for name, value in row.items() if name != "task"} for row in unit.rows()],
                "samples": unit.samples_digest,
            }
        )

    def continuation_tokens(self, task: str) -> int:
        """Greedy tokens after each prompt of a task, 0 for none."""
        return budget_of(self.config.continuation, self.by_name[task].name)

    def continuation(self, task: str, query: Query) -> Continuation | None:
        """The continuation that the config asks for at a question; None for none."""
        tokens = self.continuation_tokens(task)
        return Continuation(tokens, self.by_name[task].references(query.answer)) if tokens else None

    def code(self, task: str) -> str:
        """Digest of the code that makes a task's episodes, 16 hexadecimal digits as in the records."""
        return task_code(type(self.by_name[task]))[:16]

    def digest(self, task: str, haystack: str) -> str:
        """Digest of what a task's episodes depend on besides their factors: its settings, the tokenizer and the
        haystack.
        """
        if haystack == NOTHING:
            text = self.by_name[task].text_digest
        else:
            made_of = self.materials if self.same_text is None else self.same_text.reference
            text = made_of.stream("words" if haystack == "needles" else haystack).digest
        parts = [SUITE, self._choices[task].settings, self.tokenizer.identity, text]
        return digest_json(parts if self.same_text is None else [*parts, self.same_text.facts])

    def plan(self, grids: list[Grid], *context_lengths: int) -> Plan:
        """Merge grids into units, leaving out lengths that are too short or too long for a task (noted).
        context_lengths: the training lengths of the models that are probed with it.

        Raises ConfigError for a unit that two grids divide into different strata, EpisodeError for formats that
        cannot be built at any length.
        """
        wanted: dict[UnitKey, tuple[int, int]] = {}
        decided: dict[UnitKey, int] = {}  # the first grid that has a unit
        units, notes, too_short = [], [], []
        for number, grid in enumerate(grids):
            for key in self._crossed(grid, context_lengths, notes):
                strata = grid.depths if self._moves(key) else 1
                known, n = wanted.get(key, (strata, 0))
                if strata != known:
                    also = f"{known}, as in probe.grids[{decided[key]}], for both have {key.label}"
                    raise ConfigError(f"probe.grids[{number}].depths", strata, also)
                decided.setdefault(key, number)
                wanted[key] = strata, max(n, grid.n)
        for key, (strata, n) in wanted.items():
            least = self._shortest(key)
            if key.length < least:
                too_short.append(TooFewTokens(f"{key.task} {key.formats}", key.length, least))
                notes.append(str(too_short[-1]))
                continue
            units.append(Unit(*key, strata, n))
        units, too_long = self._without_too_long(units)
        notes += map(str, too_long)
        self._check_same_text(units)
        units.sort(key=lambda u: (u.control != "none", u.length, u.label))
        return Plan(units, notes, tuple(too_short), tuple(too_long))

    def _moves(self, key: UnitKey) -> bool:
        """Whether a unit has a target needle with a place of its own."""
        return self.by_name[key.task].axes.depth and key.control in ("none", "wrong_key")

    def _crossed(self, grid: Grid, context_lengths: Sequence[int], notes: list[str]) -> list[UnitKey]:
        """Every combination that exists, once. A factor that a task does not have collapses; a level that it lacks is
        noted.
        """
        keys: dict[UnitKey, None] = {}
        for task in grid.tasks or list(self.by_name):
            axes: Axes = self.by_name[task].axes
            wanted = {"haystack": grid.haystack, "key": grid.key, "value": grid.value, "control": grid.controls}
            wanted |= {factor: [level] for factor, level in self._choices[task].formats.items()}
            levels: list[list[str]] = []
            for factor, names in wanted.items():
                allowed = axes.levels(factor)
                if len(allowed) == 1 and factor != "control":
                    levels.append(list(allowed))
                    continue
                levels.append([level for level in names if level in allowed])
                lacking = listed((level for level in names if level not in allowed), ", ")
                if lacking:
                    notes.append(f"{task}: {factor} {lacking} (it has {' | '.join(allowed)})")
            for haystack, key, value, control in itertools.product(*levels):
                for length in grid.tokens(context_lengths):
                    keys[UnitKey(task, Formats(haystack, key, value), length, control)] = None
        return list(keys)

    def _shortest(self, key: UnitKey) -> int:
        """The least length at which some samples of a unit exist."""
        base = key.task, key.formats, key.control
        if base not in self._least:
            task = self.by_name[key.task]
            lengths = first_made(
                lambda i: task.shortest(Factors(key.formats, key.length, 0.5, i, key.control)), N_FIT_SAMPLES
            )
            self._least[base] = 1 if key.control == "query_only" else max(lengths)
        return self._least[base]

    def _without_too_long(self, units: Sequence[Unit]) -> tuple[list[Unit], list[TooManyTokens]]:
        """The units of which some samples can be built at their length, and the others: of one task, formats and
        control the longest are tried, down to the first that can be built."""
        alike: dict[tuple[str, Formats, str], list[Unit]] = {}
        for unit in units:
            alike.setdefault((unit.task, unit.formats, unit.control), []).append(unit)
        out: set[Unit] = set()
        found: dict[tuple[str, Formats], TooManyTokens] = {}
        for (task, formats, _), of in alike.items():
            for unit in sorted(of, key=lambda unit: -unit.length):
                reason = self._why_not_built(unit)
                if reason is None:
                    break
                out.add(unit)
                lengths = {unit.length, *(found[task, formats].lengths if (task, formats) in found else ())}
                found[task, formats] = TooManyTokens(f"{task} {formats}", tuple(sorted(lengths)), reason)
        return [unit for unit in units if unit not in out], list(found.values())

    def _why_not_built(self, unit: Unit) -> str | None:
        """Why some of a unit's first samples cannot be built at its length; None where all can."""
        unit = replace(unit, strata=1, n=min(unit.n, N_LONG_SAMPLES, max(1, MAX_LONG_TOKENS // unit.length)))
        if unit not in self._unbuilt:
            self._unbuilt[unit] = None
            try:
                for factors in unit.factors():
                    next(self.by_name[unit.task].attempts(factors, 1), None)
            except EpisodeError as error:
                self._unbuilt[unit] = str(error)
        return self._unbuilt[unit]

    def _check_same_text(self, units: Sequence[Unit]) -> None:
        """Raises EpisodeError for formats whose texts one of the tokenizers cannot represent, at the first of the
        lengths that is long enough to tell."""
        if self.same_text is None:
            return
        tried: dict[tuple[str, Formats, str], Unit] = {}
        for unit in sorted(units, key=lambda u: (u.length < LENGTH_TO_TELL, abs(u.length - LENGTH_TO_TELL))):
            tried.setdefault((unit.task, unit.formats, unit.control), unit)
        for unit in tried.values():
            for index in range(N_SAME_TEXT_SAMPLES):
                factors = Factors(unit.formats, unit.length, 0.5, index, unit.control)
                self.same_text.episodes(self.by_name[unit.task], factors)


def task_sets(
    config: ProbeConfig, materials: Sequence[Materials], names: Sequence[str], cache: EpisodeCache | None = None
) -> list[TaskSet]:
    """One set of tasks for each tokenizer: each with episodes of its own, or all with the same text as
    config.equal_length says; the first is the reference. names: of the tokenizers, for messages."""
    same_text = None
    if config.equal_length == "text" and len(materials) > 1:
        same_text = SameText(materials[0], tuple(own.tokenizer for own in materials), tuple(names))
    sets = [TaskSet(config, own, cache, same_text) for own in materials]
    if same_text is not None:
        for one in sets:
            one.siblings = sets
    return sets


def settings_text(config: Mapping[str, Any]) -> str:
    """A task's settings as `n_keys 4, digits 2`."""
    return ", ".join(f"{k} {v}" for k, v in config.items() if k != "type")
