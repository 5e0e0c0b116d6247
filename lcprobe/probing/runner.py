"""The runner: passes units of work through a scorer into a store. Does what is missing, keeps what is done.

In memory, for one model and one task:

    tasks = TaskSet(build(ProbeConfig, {"tasks": {"niah": {"type": "niah"}}}, "probe"), materials)
    plan = tasks.plan([Grid(lengths=in_tokens(512, 1024), haystack=["words"], n=50)])
    scorer, store = ModelScorer(model, materials.tokenizer, "cpu", chunk=1024), MemoryStore()
    records = store.read(run_plan(plan, tasks, scorer, ProbedCheckpoint("mine", "none", 0, 0), store))
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.files import digest_json
from lcprobe.probing.config import NO_FAULTS, CompatConfig, Precision, ProbeConfig
from lcprobe.probing.grid import MAX_MEMORY_TOKENS, TaskSet
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefix_sharing import prefix_batches
from lcprobe.probing.progress import ProbeProgress, no_progress
from lcprobe.probing.scoring import Item, Score, Scorer
from lcprobe.probing.store import RecordStore, unit_id
from lcprobe.probing.units import Plan, Unit
from lcprobe.records import NAMES, Record
from lcprobe.tasks.episode import SUITE, Factors


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


class UnitItem(NamedTuple):
    """A question of a unit. name: the unit's id, unique within a plan. depth: of its cell."""

    name: str
    unit: Unit
    depth: float
    factors: Factors
    item: Item


def run_plan(
    plan: Plan,
    tasks: TaskSet,
    scorer: Scorer,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    *,
    batch_tokens: int = ProbeConfig.batch_tokens,
    scoring: str = "teacher_forced",
    progress: ProbeProgress = no_progress,
) -> dict[str, Unit]:
    """Score every unit of a plan that the store lacks. Returns its units by id, for `store.read`, without those that
    cannot be made (`tasks.not_made`).

    scoring: how the scorer scores, a column of the records.
    """
    facts = [_facts(unit, tasks, checkpoint, scoring) for unit in plan.units]
    total, done, ids = plan.tokens, 0, [unit_id(f) for f in facts]
    for group in _group_units(plan.units):
        missing = [i for i in group if not store.has(ids[i]) and tasks.can_make(plan.units[i])]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            progress(done, total, plan.units[missing[0]].label + more)
            journal = unit_id({"units": [ids[i] for i in group]})
            items = [item for i in missing for item in _items(ids[i], plan.units[i], tasks, continued=True)]
            records = _run_items(items, tasks, scorer, checkpoint, store, journal, batch_tokens, scoring)
            for i in missing:
                store.finish(ids[i], [r for r in records if r["unit"] == ids[i]], facts[i])
            store.discard(journal)
        done += sum(plan.units[i].length * n for i in group for _, n in plan.units[i].cells)
    progress(total, total, "")
    return {name: unit for name, unit in zip(ids, plan.units, strict=True) if unit not in tasks.not_made}


def parity_pairs(plan: Plan, tasks: TaskSet, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prompt, answer) of n samples of a plan, for `check_parity`, or of all that it has: units in turn, in each the
    samples in order. Builds these samples alone."""
    samples = [unit.factors() for unit in plan.units]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for turn in range(max(map(len, samples), default=0)):
        for unit, factors in zip(plan.units, samples, strict=True):
            if turn >= len(factors):
                continue
            try:
                episode = tasks.by_name[unit.task].episode(factors[turn])
            except EpisodeError:  # the runner leaves the unit out, too
                continue
            query = episode.queries[0]
            ids = episode.sequence(query)
            pairs.append((ids[: query.start], ids[query.start :]))
            if len(pairs) == n:
                return pairs
    return pairs


def units_of_other_code(plan: Plan, tasks: TaskSet, store: RecordStore) -> list[str]:
    """A note for each task of a plan of which the store has units that another version of its code made: no record of
    theirs is read."""
    old: Counter[tuple[str, str, str]] = Counter()
    for facts in store.facts():
        old[facts["task"], facts.get("code", "not recorded"), facts["suite"]] += 1
    current = {unit.task: (tasks.code(unit.task), SUITE) for unit in plan.units}
    return [
        f"{task}: {count} finished units were made by other code of the task ({code}, suite {suite}; now "
        f"{current[task][0]}, suite {SUITE}) and are left out"
        for (task, code, suite), count in sorted(old.items())
        if task in current and (code, suite) != current[task]
    ]


def score_unit(unit: Unit, tasks: TaskSet, scorer: Scorer, batch_tokens: int) -> list[tuple[UnitItem, Score]]:
    """Scores of a unit without records, for the probe while training. Questions that do not fit into memory are
    missing. Raises NotMade where a sample of the unit cannot be made.
    """
    items = _items(unit.label, unit, tasks)
    return [
        (one, score)
        for batch in _batches(items, batch_tokens)
        for one, score in zip(batch, _score(scorer, batch)[0], strict=True)
        if score is not None
    ]


def _facts(unit: Unit, tasks: TaskSet, checkpoint: ProbedCheckpoint, scoring: str) -> dict[str, Any]:
    """Everything that the records of a unit depend on."""
    facts: dict[str, Any] = {
        **checkpoint.facts,
        "suite": SUITE,
        "columns": digest_json(NAMES),
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


def _run_items(
    items: list[UnitItem],
    tasks: TaskSet,
    scorer: Scorer,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    journal: str,
    batch_tokens: int,
    scoring: str,
) -> list[Record]:
    """Records of the items of one or several units, each with its unit's id as `unit`. Batches in the journal are not
    repeated.

    A batch may contain questions of several units: they share prompts.
    """
    records = [record for batch in store.resume(journal) for record in batch]
    known = {(r["unit"], r["depth"], r["index"], r["query"]) for r in records}
    for whole in _batches(items, batch_tokens):
        batch = [one for one in whole if (one.name, one.depth, one.factors.index, one.item.number) not in known]
        if not batch:
            continue
        scores, size = _score(scorer, batch)
        new = [
            _record(one, tasks, score, checkpoint, scoring, size) for one, score in zip(batch, scores, strict=True)
        ]
        store.append(journal, new)
        records += new
    return sorted(records, key=lambda r: (r["depth"], r["index"], r["query"]))


def _group_units(units: list[Unit]) -> list[list[int]]:
    """Units by number, those together that may share haystacks, as long as their prompts fit into memory together."""
    by_haystack: dict[tuple[str, int, str], list[list[int]]] = {}
    for number, unit in enumerate(units):
        groups = by_haystack.setdefault((unit.task, unit.length, unit.formats.haystack), [[]])
        tokens = sum(unit.length * n for i in (*groups[-1], number) for _, n in units[i].cells)
        if groups[-1] and tokens > MAX_MEMORY_TOKENS:
            groups.append([])
        groups[-1].append(number)
    return sorted(group for groups in by_haystack.values() for group in groups)


def _items(name: str, unit: Unit, tasks: TaskSet, continued: bool = False) -> list[UnitItem]:
    """continued: with the continuation that the config asks for, where the unit is no control."""
    ask = tasks.continuation if continued and unit.control == "none" else lambda task, query: None
    return [
        UnitItem(name, unit, depth, factors, Item(episode, query, ask(unit.task, query)))
        for (depth, factors), episode in zip(unit.samples(), tasks.episodes(unit), strict=True)
        for query in episode.queries
    ]


def _batches(items: Sequence[UnitItem], batch_tokens: int) -> Iterator[list[UnitItem]]:
    """Items in batches, those with a common prefix together: a pure function of its arguments."""
    prompts = [one.item.prompt for one in items]
    for batch in prefix_batches(prompts, max(1, batch_tokens // max(map(len, prompts)))):
        yield [items[i] for i in batch]


def _score(scorer: Scorer, batch: list[UnitItem]) -> tuple[list[Score | None], int]:
    """Scores of a batch, None for what does not fit into memory alone, and the size of the batches that fitted."""
    items = [one.item for one in batch]
    return with_oom_backoff(scorer.score, items, max(item.query.stop for item in items))


def _record(
    one: UnitItem, tasks: TaskSet, score: Score | None, checkpoint: ProbedCheckpoint, scoring: str, batch: int
) -> Record:
    unit, factors, item = one.unit, one.factors, one.item
    query, episode = item.query, item.episode
    text = tasks.text_of(episode)
    empty: dict[str, Any] = dict.fromkeys(f.name for f in fields(Score))
    via = [stop for start, stop in episode.needles if start in query.via]
    return {
        "model": checkpoint.name,
        "checkpoint": checkpoint.digest,
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "engine": checkpoint.engine,
        "extension": checkpoint.extension,
        "factor": checkpoint.factor_at(unit.length if tasks.same_text is None else len(episode.ids)),
        "suite": SUITE,
        "task": unit.task,
        "task_code": tasks.code(unit.task),
        "haystack": unit.formats.haystack,
        "key_format": unit.formats.key,
        "value_format": unit.formats.value,
        "control": unit.control,
        "length": unit.length,
        "depth": one.depth,
        "strata": unit.strata,
        "drawn_depth": factors.depth,
        "index": factors.index,
        "query": item.number,
        "tokenizer": tasks.tokenizer.identity[:16],
        "equal_length": tasks.config.equal_length,
        "episode_tokens": len(episode.ids),
        "characters": text.characters,
        "text": text.digest,
        "template": tasks.materials.template.name,
        "realised_depth": episode.realised_depth,
        "distance": query.distance,
        "hops": len(query.via),
        "via_distance": query.start - max(via) if via else None,
        "rounds": episode.rounds,
        "haystack_start": episode.haystack_start,
        "prompt_tokens": query.start,
        "answer_tokens": query.stop - query.start,
        "chance": query.chance,
        "n_candidates": len(query.candidates),
        **(empty if score is None else vars(score)),
        "answer": query.answer,
        "scoring": scoring,
        "status": "oom" if score is None else "ok",
        "batch": batch,
        "episode": episode.digest,
        "unit": one.name,
    }
