"""The runner: units of work through a scorer into the store. Does what is missing, keeps what is done."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from lcprobe.files import digest_json
from lcprobe.probing.grid import KEEP_TOKENS, Plan, TaskSet, Unit
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefix_sharing import prefix_batches
from lcprobe.probing.scoring import Item, Score, Scorer
from lcprobe.probing.store import Store
from lcprobe.records import NAMES, Record
from lcprobe.tasks.episode import SUITE, Factors

log = logging.getLogger(__name__)
Progress = Callable[[int, int, str], None]
"""Called with (tokens done, tokens in all, what comes next)."""


@dataclass(frozen=True)
class ProbedCheckpoint:
    """Who is probed. digest: of its weights; step and tokens: how far it was trained.

    extension: label of the method that changed it; changes: digest of the method with its settings; factor_at: its factor at a
    length.
    """

    name: str
    digest: str
    step: int
    tokens: int
    extension: str = "none"
    changes: str = "none"
    factor_at: Callable[[int], float] = lambda _: 1.0


def run_plan(
    plan: Plan,
    tasks: TaskSet,
    scorer: Scorer,
    subject: ProbedCheckpoint,
    store: Store,
    *,
    batch_tokens: int,
    scoring: str,
    say: Progress,
) -> list[str]:
    """Score every unit of a plan that the store lacks; the ids of all its units.

    Raises EpisodeError when a sample of a unit cannot be built.
    """
    facts = [
        {
            "checkpoint": subject.digest,
            "suite": SUITE,
            "columns": digest_json(NAMES),
            "task": unit.task,
            "made_of": tasks.digest(unit.task, unit.formats.haystack),
            "cells": unit.rows(),
            "scoring": scoring,
            "name": subject.name,
            "changes": subject.changes,
            "factor": subject.factor_at(unit.length),
            **({"first": unit.first} if unit.first else {}),
        }
        for unit in plan.units
    ]
    total, done, ids = plan.tokens, 0, [store.unit_id(f) for f in facts]
    for kin in _group_units(plan.units):
        missing = [i for i in kin if not store.has(ids[i])]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            say(done, total, plan.units[missing[0]].label + more)
            journal = store.unit_id({"units": [ids[i] for i in kin]})
            units = {ids[i]: plan.units[i] for i in missing}
            records = _run_units(units, tasks, scorer, subject, store, journal, batch_tokens, scoring)
            for i in missing:
                store.finish(ids[i], [r for r in records if r["unit"] == ids[i]], facts[i])
            store.journal(journal).unlink(missing_ok=True)
        done += sum(plan.units[i].length * n for i in kin for _, n in plan.units[i].cells)
    say(total, total, "")
    return ids


def score_unit(unit: Unit, tasks: TaskSet, scorer: Scorer, batch_tokens: int) -> list[tuple[Factors, Item, Score]]:
    """Score a unit in memory: what the probe while training does."""
    scored, items = [], _items(unit, tasks)
    for numbers in _batches([item for _, item in items], batch_tokens):
        batch = [items[i] for i in numbers]
        scores, _ = _score(scorer, [item for _, item in batch])
        scored += [(f, item, s) for (f, item), s in zip(batch, scores, strict=True) if s is not None]
    return scored


def _run_units(
    units: dict[str, Unit],
    tasks: TaskSet,
    scorer: Scorer,
    subject: ProbedCheckpoint,
    store: Store,
    journal: str,
    batch_tokens: int,
    scoring: str,
) -> list[Record]:
    """Records of units by id, each with the unit's id as `unit`. A batch may hold questions of several: they share prompts."""
    records = [record for batch in store.resume(journal) for record in batch]
    known = {(r["unit"], r["depth"], r["index"], r["query"]) for r in records}
    of = [(name, unit, *pair) for name, unit in units.items() for pair in _items(unit, tasks)]
    for numbers in _batches([item for *_, item in of], batch_tokens):
        batch = [of[i] for i in numbers]
        batch = [(n, unit, f, item) for n, unit, f, item in batch if (n, f.depth, f.index, item.number) not in known]
        if not batch:
            continue
        scores, size = _score(scorer, [item for *_, item in batch])
        made = [
            _record(unit, factors, item, score, subject, scoring, size) | {"unit": name}
            for (name, unit, factors, item), score in zip(batch, scores, strict=True)
        ]
        store.append(journal, made)
        records += made
    return sorted(records, key=lambda r: (r["depth"], r["index"], r["query"]))


def _group_units(units: list[Unit]) -> list[list[int]]:
    """Units by number, those together that may share haystacks, as long as their prompts fit into memory together."""
    found: dict[tuple[str, int, str], list[list[int]]] = {}
    for number, unit in enumerate(units):
        groups = found.setdefault((unit.task, unit.length, unit.formats.haystack), [[]])
        tokens = sum(unit.length * n for i in (*groups[-1], number) for _, n in units[i].cells)
        if groups[-1] and tokens > KEEP_TOKENS:
            groups.append([])
        groups[-1].append(number)
    return sorted(group for groups in found.values() for group in groups)


def _items(unit: Unit, tasks: TaskSet) -> list[tuple[Factors, Item]]:
    items = []
    for factors, episode in zip(unit.factors(), tasks.episodes(unit), strict=True):
        items += [(factors, Item(episode, query)) for query in episode.queries]
    return items


def _batches(items: list[Item], batch_tokens: int) -> list[list[int]]:
    """Items by number, those with a common beginning together, as many as fit: a pure function of its arguments."""
    prompts = [item.prompt for item in items]
    return prefix_batches(prompts, max(1, batch_tokens // max(map(len, prompts))))


def _score(scorer: Scorer, items: list[Item]) -> tuple[list[Score | None], int]:
    return with_oom_backoff(scorer.score, items, max(item.query.stop for item in items))


def _record(
    unit: Unit, factors: Factors, item: Item, score: Score | None, subject: ProbedCheckpoint, scoring: str, batch: int
) -> Record:
    query, episode = item.query, item.episode
    empty: dict[str, Any] = dict.fromkeys(f.name for f in fields(Score))
    via = [stop for start, stop in episode.needles if start in query.via]
    return {
        "model": subject.name,
        "checkpoint": subject.digest,
        "step": subject.step,
        "tokens": subject.tokens,
        "extension": subject.extension,
        "factor": subject.factor_at(unit.length),
        "suite": SUITE,
        "task": unit.task,
        "haystack": unit.formats.haystack,
        "key_format": unit.formats.key,
        "value_format": unit.formats.value,
        "control": unit.control,
        "length": unit.length,
        "depth": factors.depth,
        "index": factors.index,
        "query": item.number,
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
    }


class ProgressLines:
    """Progress as lines on stderr, a few seconds apart."""

    def __init__(self, name: str, seconds: float = 10.0):
        self._name, self._seconds, self._begin, self._next = name, seconds, time.perf_counter(), 0.0

    def __call__(self, done: int, total: int, what: str) -> None:
        """`probing mamba2: 34 % of 2.1M tokens, 0:40 left: multikey corpus/words/numbers @512`."""
        now = time.perf_counter()
        if now < self._next and what:
            return
        self._next = now + self._seconds
        share = done / max(total, 1)
        left = (now - self._begin) / share * (1 - share) if done else None
        eta = "" if left is None or not what else f", {int(left) // 60}:{int(left) % 60:02d} left"
        tail = f": {what}" if what else f" in {now - self._begin:.0f} s"
        print(
            f"probing {self._name}: {share:4.0%} of {total / 1e6:.2f}M tokens{eta}{tail}", file=sys.stderr, flush=True
        )


def say_shared(name: str, records: pa.Table) -> None:
    """One line on stderr: how many prompt tokens were read, and how many were shared instead."""
    read, prompts = (sum(filter(None, records[column].to_pylist())) for column in ("read_tokens", "prompt_tokens"))
    if read:
        text = f"{prompts / 1e6:.2f}M prompt tokens read as {read / 1e6:.2f}M, {1 - read / prompts:.0%} shared"
        print(f"probing {name}: {text}", file=sys.stderr, flush=True)
