"""From grids to units of work: which cells exist, which samples each has, and what does not fit."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lcprobe import seeds, tasks
from lcprobe.errors import unknown_name
from lcprobe.files import digest_bytes, digest_json
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.episode import SUITE, Episode, Factors, Formats
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.text.haystack import Materials

KEEP_TOKENS = 1 << 26
"""Tokens of episodes kept in memory for the next model: a quarter of a gigabyte."""
DISK_LENGTH = 1 << 15
"""Longest episodes kept on disk: longer ones take several times as long to write as to build, and about as long to read: at 128K
tokens most of that goes into their digest and fresh memory, however few bytes a file has (`python -m benchmarks generation`)."""
FIT_SAMPLES = 24
"""Samples tried before a cell is said to fit; the rest is checked when built."""


@dataclass(frozen=True)
class Unit:
    """Cells that differ only in depth: scored together, stored in one file. cells: (depth, samples), ascending depth.

    first: index of the first sample; studies that must not share a sample begin at different ones.
    """

    task: str
    formats: Formats
    length: int
    control: str
    cells: tuple[tuple[float, int], ...]
    first: int = 0

    @property
    def label(self) -> str:
        """For progress and messages."""
        f = self.formats
        control = "" if self.control == "none" else f" {self.control}"
        return f"{self.task} {f.haystack}/{f.key}/{f.value} @{self.length}{control}"

    def rows(self) -> list[dict[str, Any]]:
        """The planned cells as rows: what the analysis holds against the records."""
        f = self.formats
        names = {"haystack": f.haystack, "key_format": f.key, "value_format": f.value, "control": self.control}
        return [
            {"task": self.task, **names, "length": self.length, "depth": depth, "n": n} for depth, n in self.cells
        ]

    def factors(self) -> list[Factors]:
        """Every sample of every cell, in the order of scoring."""
        own = range(self.first, self.first + max(n for _, n in self.cells))
        return [
            Factors(self.formats, self.length, depth, index, self.control)
            for depth, n in self.cells
            for index in own[:n]
        ]


@dataclass(frozen=True)
class Plan:
    """Units that can be built, and why others cannot."""

    units: list[Unit]
    notes: list[str]

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of all samples: what one model reads."""
        return sum(unit.length * n for unit in self.units for _, n in unit.cells)


class TaskSet:
    """The tasks of a probe config over one set of materials. Raises ConfigError for a task that cannot be made."""

    def __init__(self, config: ProbeConfig, materials: Materials, cache: EpisodeCache | None = None):
        self.config, self.materials, self.cache = config, materials, cache
        self._chosen = config.tasks
        self.made: dict[str, Task] = {name: choice.create(materials) for name, choice in config.tasks.items()}
        for name, task in self.made.items():
            for factor, level in self._chosen[name].formats.items():
                if level not in task.axes.levels(factor):
                    raise unknown_name(f"probe.tasks.{name}.formats.{factor}", level, task.axes.levels(factor))
        self._kept: dict[Unit, list[Episode]] = {}
        self._kept_tokens = 0

    def episodes(self, unit: Unit) -> list[Episode]:
        """The episodes of `unit.factors()`: from memory, from disk, or built. The next model is asked the same."""
        episodes = self._kept.get(unit)
        if episodes is not None:
            return episodes
        cache, facts = self.cache if unit.length <= DISK_LENGTH else None, self.facts(unit)
        episodes = None if cache is None else cache.read(facts)
        if episodes is None:
            episodes = [self.made[unit.task].episode(factors) for factors in unit.factors()]
            if cache is not None:
                cache.write(facts, episodes)
        tokens = sum(len(episode.ids) for episode in episodes)
        if self._kept_tokens + tokens <= KEEP_TOKENS:
            self._kept[unit] = episodes
            self._kept_tokens += tokens
        return episodes

    def forget(self) -> None:
        """Drop the episodes in memory: nobody will be asked the same again."""
        self._kept.clear()
        self._kept_tokens = 0

    def facts(self, unit: Unit) -> dict[str, Any]:
        """Everything that the episodes of a unit depend on."""
        task, bos = self._chosen[unit.task].settings, self.materials.tokenizer.bos_id
        made_of = self.digest(unit.task, unit.formats.haystack)
        cells = [
            {name: value for name, value in row.items() if name != "task"} for row in unit.rows()
        ]  # not its name here
        samples = digest_json([[f.depth, f.index] for f in unit.factors()])  # a unit may have depths of its own
        made = {"suite": SUITE, "source": _source(), "made_of": made_of, "bos": bos}
        return {"task": task, **made, "cells": cells, "samples": samples}

    def digest(self, task: str, haystack: str) -> str:
        """What the episodes of a task depend on beside their factors: its settings, the tokenizer and the haystack."""
        own = self.made[task].text_digest
        text = (
            own
            if haystack == NOTHING
            else self.materials.stream("words" if haystack == "needles" else haystack).digest
        )
        parts = [SUITE, self._chosen[task].settings, self.materials.tokenizer.digest, text]
        return digest_json(parts)

    def plan(self, grids: list[Grid], context_length: int) -> Plan:
        """Merge grids into units, leaving out lengths that are too short for a task (noted).

        Raises EpisodeError for formats that cannot be built at any length.
        """
        wanted: dict[tuple[str, Formats, int, str], dict[float, int]] = {}
        units, notes = [], []
        for grid in grids:
            for key in self._crossed(grid, context_length, notes):
                moves = self.made[key[0]].axes.depth and key[3] in ("none", "wrong_key")
                cells = wanted.setdefault(key, {})
                for depth in grid.depths if moves else [0.5]:
                    cells[depth] = max(cells.get(depth, 0), grid.n)
        needed: dict[tuple[str, Formats, str], int] = {}
        for (task, formats, length, control), cells in wanted.items():
            least = self._least(needed, task, formats, control, length)
            if length < least:
                f = formats
                notes.append(f"{task} {f.haystack}/{f.key}/{f.value}: {length} tokens are too few (at least {least})")
                continue
            units.append(Unit(task, formats, length, control, tuple(sorted(cells.items()))))
        return Plan(sorted(units, key=lambda u: (u.control != "none", u.length, u.label)), notes)

    def _crossed(self, grid: Grid, context_length: int, notes: list[str]) -> list[tuple[str, Formats, int, str]]:
        """Every combination that exists, once; a factor that a task does not have collapses, a level that it lacks is noted."""
        found: dict[tuple[str, Formats, int, str], None] = {}
        for task in grid.tasks or list(self.made):
            axes: Axes = self.made[task].axes
            levels: list[list[str]] = []
            for factor in ("haystack", "key", "value", "control"):
                allowed = axes.levels(factor)
                asked = grid.controls if factor == "control" else getattr(grid, factor)
                held = self._chosen[task].formats.get(factor)
                asked = asked if held is None else [held]
                has = [level for level in asked if level in allowed]
                if len(allowed) == 1 and factor != "control":
                    has = list(allowed)
                elif len(has) < len(asked):
                    lacking = ", ".join(level for level in asked if level not in allowed)
                    notes.append(f"{task}: {factor} {lacking} (it has {' | '.join(allowed)})")
                levels.append(has)
            for haystack, key, value, control in itertools.product(*levels):
                for length in grid.tokens(context_length):
                    found[task, Formats(haystack, key, value), length, control] = None
        return list(found)

    def _least(
        self, known: dict[tuple[str, Formats, str], int], task: str, formats: Formats, control: str, length: int
    ) -> int:
        key = (task, formats, control)
        if key not in known:
            made = self.made[task]
            found = [made.shortest(Factors(formats, length, 0.5, i, control)) for i in range(FIT_SAMPLES)]
            known[key] = 1 if control == "query_only" else max(found)
        return known[key]


@lru_cache
def _source() -> str:
    """Digest of the code and the word lists that episodes are made by."""
    folder = Path(tasks.__file__).parent
    files = [Path(seeds.__file__), *sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".txt"))]
    return digest_bytes(*(path.read_bytes() for path in files))


def described(config: Mapping[str, Any]) -> str:
    """A task's settings in words."""
    return ", ".join(f"{k} {v}" for k, v in config.items() if k != "type")
