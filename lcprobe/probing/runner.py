"""The runner: passes units of work through a scorer into a store. Does what is missing, keeps what is done.

In memory, for one model and one task:

    tasks = TaskSet(build(ProbeConfig, {"tasks": {"niah": {"type": "niah"}}}, "probe"), materials)
    plan = tasks.plan([Grid(lengths=in_tokens(512, 1024), haystack=["words"], n=50)])
    scorer, store = ModelScorer(model, materials.tokenizer, "cpu", chunk=1024), MemoryStore()
    records = store.read(run_plan(plan, tasks, scorer, ProbedCheckpoint("mine", "none", 0, 0), store))
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError, listed
from lcprobe.locks import Claim, ClaimLost, Process, require_kept
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefix_sharing import prefix_batches
from lcprobe.probing.progress import Done, ProbeProgress, amount_of_units, no_progress
from lcprobe.probing.scoring import Item, Score, Scorer
from lcprobe.probing.sharing.waiting import Waiting
from lcprobe.probing.sharing.work import Group, ProbedCheckpoint, Work, work_of
from lcprobe.probing.store import RecordStore
from lcprobe.probing.units import Plan, Unit
from lcprobe.records import Record
from lcprobe.tasks.episode import SUITE, Factors

log = logging.getLogger(__name__)


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
    cannot be made (`tasks.not_made`). Waits for units that other processes have claimed.

    scoring: how the scorer scores, a column of the records.
    """
    work, waiting = work_of(plan, tasks, checkpoint, scoring), Waiting()
    while True:
        run_free(work, scorer, checkpoint, store, batch_tokens=batch_tokens, scoring=scoring, progress=progress)
        if not work.left(store):
            break
        waiting(work.claimed(store.claims()))
    progress(amount_of_units(plan.units), "")
    return work.units


def run_free(
    work: Work,
    scorer: Scorer,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    *,
    batch_tokens: int,
    scoring: str,
    progress: ProbeProgress = no_progress,
) -> None:
    """Score every unit that the store lacks and that no other process has claimed."""
    units, shared = work.plan.units, False
    groups = work.left(store)
    left = {group.name: _amount(work, work.unfinished(group, store)) for group in groups}
    for group in groups:
        claim = store.claim(group.name)
        if isinstance(claim, Process):
            shared = True
            continue
        try:
            missing = work.missing(group, store)  # now, as another process may have finished them
            if missing:
                if shared:
                    left |= {g.name: _amount(work, work.unfinished(g, store)) for g in groups if g.name in left}
                left[group.name] = own = _amount(work, missing)
                done = reduce(lambda rest, one: rest.plus(one, -1), left.values(), amount_of_units(units))
                label = group.label + (_others(work, group, store) if shared else "")
                tell = _within(progress, done, own, label)
                _run_group(work, group, missing, claim, scorer, checkpoint, store, batch_tokens, scoring, tell)
        except ClaimLost as error:
            log.warning("%s: %s", group.label, error)
            continue
        finally:
            claim.release()
        left.pop(group.name, None)


def _amount(work: Work, numbers: Iterable[int]) -> Done:
    return amount_of_units(work.plan.units[i] for i in numbers)


def _within(progress: ProbeProgress, done: Done, own: Done, label: str) -> Callable[[float], None]:
    """Progress within a group, called with the share of its questions that are answered."""
    return lambda share: progress(done.plus(own, share), label)


def _run_group(
    work: Work,
    group: Group,
    missing: Sequence[int],
    claim: Claim,
    scorer: Scorer,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    batch_tokens: int,
    scoring: str,
    tell: Callable[[float], None],
) -> None:
    """Score the missing units of a claimed group. Raises ClaimLost where another process has taken it over."""
    ids, tasks = work.ids, work.tasks
    items = [item for i in missing for item in unit_items(ids[i], work.plan.units[i], tasks, continued=True)]
    records = _run_items(items, tasks, scorer, checkpoint, store, group.name, claim, batch_tokens, scoring, tell)
    for i in missing:
        require_kept(claim)
        store.finish(ids[i], [r for r in records if r["unit"] == ids[i]], work.facts[i])
    store.discard(group.name)


def _others(work: Work, own: Group, store: RecordStore) -> str:
    """`; others: vt words @512 (process 7 on a), ...`: the work that other processes do meanwhile."""
    taken = [
        f"{label} ({process.name})" for label, process in work.claimed(store.claims()).items() if label != own.label
    ]
    return f"; others: {listed(taken, ', ')}" if taken else ""


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
    for unit in store.summaries().values():
        old[unit.task, unit.code or "not recorded", unit.suite] += 1
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
    items = unit_items(unit.label, unit, tasks)
    return [
        (one, score)
        for batch in _batches(items, batch_tokens)
        for one, score in zip(batch, _score(scorer, batch)[0], strict=True)
        if score is not None
    ]


def _run_items(
    items: list[UnitItem],
    tasks: TaskSet,
    scorer: Scorer,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    journal: str,
    claim: Claim,
    batch_tokens: int,
    scoring: str,
    tell: Callable[[float], None],
) -> list[Record]:
    """Records of the items of one or several units, each with its unit's id as `unit`. Batches in the journal are not
    repeated. Raises ClaimLost where another process has taken the units over.

    A batch may contain questions of several units: they share prompts.
    """
    known = {_key_of(record): record for batch in store.resume(journal) for record in batch}
    records = list(known.values())
    for whole in _batches(items, batch_tokens):
        tell(len(records) / len(items))
        batch = [one for one in whole if (one.name, one.depth, one.factors.index, one.item.number) not in known]
        if not batch:
            continue
        scores, size = _score(scorer, batch)
        new = [
            record_of(one, tasks, score, checkpoint, scoring, size) for one, score in zip(batch, scores, strict=True)
        ]
        require_kept(claim)
        store.append(journal, new)
        records += new
    tell(1.0)
    return sorted(records, key=lambda r: (r["depth"], r["index"], r["query"]))


def _key_of(record: Record) -> tuple[str, float, int, int]:
    return record["unit"], record["depth"], record["index"], record["query"]


def unit_items(name: str, unit: Unit, tasks: TaskSet, continued: bool = False) -> list[UnitItem]:
    """The questions of a unit in the order of scoring. continued: with the continuation that the config asks for,
    where the unit is no control."""
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


def record_of(
    one: UnitItem, tasks: TaskSet, score: Score | None, checkpoint: ProbedCheckpoint, scoring: str, batch: int
) -> Record:
    """The record of a question; score None: it does not fit into memory."""
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
