"""The work that a plan is for one model: its units by id, in groups that are scored together and claimed together.

Several processes may share a store. Each takes a group that is neither finished nor claimed; a group whose process is
gone is free again, and goes on from the valid part of its journal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lcprobe.locks import Process
from lcprobe.probing.config import NO_FAULTS, CompatConfig, Precision
from lcprobe.probing.grid import MAX_MEMORY_TOKENS, TaskSet
from lcprobe.probing.store import RecordStore, unit_id
from lcprobe.probing.store.versions import COLUMNS_IN_IDS
from lcprobe.probing.units import Plan, Unit
from lcprobe.tasks.episode import SUITE


@dataclass(frozen=True)
class ProbedCheckpoint:
    """The identity of a probed model, as records name it. digest: of its weights; step and tokens: how far it was
    trained.

    extension: label of the method that changed it; changes: digest of the method with its settings; factor_at: its
    factor at a length. precision: in which it is probed; weights: in which a published model's weights are kept.
    engine: what runs it. compat: faults that it is probed with.
    """

    name: str
    digest: str
    step: int
    tokens: int
    extension: str = "none"
    changes: str = "none"
    factor_at: Callable[[int], float] = lambda _: 1.0
    precision: Precision = "32"
    weights: Precision = "32"
    engine: str = "native"
    compat: CompatConfig = NO_FAULTS

    @property
    def facts(self) -> dict[str, str]:
        """What a unit of work depends on, of the model."""
        facts = {"checkpoint": self.digest, "name": self.name, "changes": self.changes}
        usual = {"precision": "32", "weights": "32", "engine": "native"}
        own = {"precision": self.precision, "weights": self.weights, "engine": self.engine}
        facts |= {name: value for name, value in own.items() if value != usual[name]}
        return facts | dict.fromkeys(self.compat.active, "true")


@dataclass(frozen=True)
class Group:
    """Units that share prompts. name: of their journal and of the claim on them; numbers: of the units, in the plan;
    label: in words."""

    name: str
    numbers: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class Work:
    """ids, facts: of each unit of the plan, what it is called and what its records depend on."""

    plan: Plan
    tasks: TaskSet
    ids: list[str]
    facts: list[dict[str, Any]]
    groups: list[Group]

    def unfinished(self, group: Group, store: RecordStore) -> list[int]:
        """The units of a group, by number, that the store lacks and that are not known to be impossible."""
        not_made, units = self.tasks.not_made, self.plan.units
        return [i for i in group.numbers if units[i] not in not_made and not store.has(self.ids[i])]

    def missing(self, group: Group, store: RecordStore) -> list[int]:
        """The unfinished ones that can be made."""
        return [i for i in self.unfinished(group, store) if self.tasks.can_make(self.plan.units[i])]

    def left(self, store: RecordStore) -> list[Group]:
        """The groups that are not finished."""
        return [group for group in self.groups if self.unfinished(group, store)]

    def has_free(self, store: RecordStore, taken: Mapping[str, Process]) -> bool:
        """Whether there is something to do that nobody does. taken: `store.claims()`."""
        return any(group.name not in taken and self.missing(group, store) for group in self.groups)

    def claimed(self, taken: Mapping[str, Process]) -> dict[str, Process]:
        """Which process has what, by the label of the group. taken: `store.claims()`."""
        return {group.label: taken[group.name] for group in self.groups if group.name in taken}

    @property
    def units(self) -> dict[str, Unit]:
        """The units by id, without those that cannot be made."""
        found = zip(self.ids, self.plan.units, strict=True)
        return {name: unit for name, unit in found if unit not in self.tasks.not_made}


def work_of(plan: Plan, tasks: TaskSet, checkpoint: ProbedCheckpoint, scoring: str) -> Work:
    """The work of a plan for a model. scoring: how it is scored, a column of the records."""
    facts = [unit_facts(unit, tasks, checkpoint, scoring) for unit in plan.units]
    ids = [unit_id(f) for f in facts]
    groups = []
    for numbers in group_units(plan.units):
        more = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
        name = unit_id({"units": [ids[i] for i in numbers]})
        groups.append(Group(name, tuple(numbers), plan.units[numbers[0]].label + more))
    return Work(plan, tasks, ids, facts, groups)


def unit_facts(unit: Unit, tasks: TaskSet, checkpoint: ProbedCheckpoint, scoring: str) -> dict[str, Any]:
    """Everything that the records of a unit depend on."""
    facts: dict[str, Any] = {
        **checkpoint.facts,
        "suite": SUITE,
        "columns": COLUMNS_IN_IDS,
        "task": unit.task,
        "code": tasks.code(unit.task),
        "made_of": tasks.digest(unit.task, unit.formats.haystack),
        "cells": unit.rows(),
        "samples": unit.samples_digest,
        "scoring": scoring,
        "factor": checkpoint.factor_at(unit.length),
    }
    facts |= tasks.template_facts
    if unit.first:
        facts["first"] = unit.first
    if tasks.config.continuation is not None and unit.control == "none":
        facts["continuation"] = tasks.continuation_tokens(unit.task)
    if tasks.config.equal_length != "tokens":
        facts["equal_length"] = tasks.config.equal_length
    return facts


def group_units(units: list[Unit]) -> list[list[int]]:
    """Units by number, those together that may share haystacks, as long as their prompts fit into memory together."""
    by_haystack: dict[tuple[str, int, str], list[list[int]]] = {}
    for number, unit in enumerate(units):
        groups = by_haystack.setdefault((unit.task, unit.length, unit.formats.haystack), [[]])
        tokens = sum(unit.length * n for i in (*groups[-1], number) for _, n in units[i].cells)
        if groups[-1] and tokens > MAX_MEMORY_TOKENS:
            groups.append([])
        groups[-1].append(number)
    return sorted(group for groups in by_haystack.values() for group in groups)
