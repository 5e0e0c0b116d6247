"""Planted copiers: models that name a value by its place or its room and never by its key, and mixtures of them with
true retrieval. Is a copier said to look keys up, or given an effective length, or called lost in the middle?

A copier answers by a policy of the leakage check. A mixture finds the value with probability p wherever it is, and
else answers by the policy, as it does where the key is absent. It has no place effect at all: whatever a report says
of primacy, recency or the middle is a policy's doing. Every seed has samples of its own (see `planted`).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.stats.intervals import wilson
from lcprobe.errors import ConfigError
from lcprobe.probing.config import Grid
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES
from lcprobe.probing.policies.observation import Observation, TaskStatistics, collect_statistics, observe
from lcprobe.probing.policies.planted import has_key
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.probing.store import MemoryStore
from lcprobe.probing.units import Plan
from lcprobe.schema import build
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.planted import N_TEXTS, of_seed, study_of, task_set

TITLE = "planted copiers: share of seeds in which a report is taken in"
OPTIONS = ("n", "seeds", "tasks")
GROUP = ("task",)
CONTEXT, LENGTHS = 128, [0.5, 1, 2]
TASKS: dict[str, Any] = {
    "multikey": {"type": "niah", "n_keys": 4, "word_pairs": True, "template": "line"},
    "words": {"type": "niah", "n_keys": 4, "word_pairs": True, "template": "line", "formats": {"value": "words"}},
    "lines": {"type": "niah", "n_keys": 1, "word_pairs": True, "formats": {"haystack": "needles"}},
}
GRIDS: dict[str, dict[str, Any]] = {"lines": {"lengths": [1, 2], "depths": 7}}
"""Of tasks whose grid is another: one key among lines with keys and values, as in configs/probe/needles.yaml."""
FOUND = (0.0, 0.5, 0.8)
"""Probabilities of true retrieval: 0 is a pure copier."""
COPIED = ("last_distinct", "first_distinct", "nearest_to_a_depth", "room_left")
PLACES = ("lost in the middle", "primacy", "recency")


@dataclass
class Copier:
    """A scorer that finds the value of a key in the context with probability p, and else answers by a policy."""

    policy: str
    p: float
    seed: int
    tokenizer: Tokenizer
    stats: TaskStatistics
    observations: dict[tuple[str, int], tuple[Observation, bool]]
    """What is observed of each question, and whether its key is in the context; shared by all copiers of a seed."""

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what it prints."""
        return [scored_text(item, self._answer(item), self.tokenizer) for item in items]

    def _answer(self, item: Item) -> str:
        key = item.episode.digest, item.query.start
        if key not in self.observations:
            self.observations[key] = observe(item, self.tokenizer, self.stats), has_key(item, self.tokenizer)
        obs, present = self.observations[key]
        if present and Stream("copier", self.seed, *key).uniform(1)[0] < self.p:
            return item.query.answer
        return POLICIES[self.policy](obs, self.stats, Stream("copier's guess", self.seed, obs.key, self.policy))


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per copier and task. options: n (40) samples per cell, seeds (200), tasks (comma-separated)."""
    n, seeds = int(options.get("n", 40)), int(options.get("seeds", 200))
    names = options["tasks"].split(",") if "tasks" in options else list(TASKS)
    for name in names:
        if name not in TASKS:
            raise ConfigError("tasks", name, ", ".join(TASKS))
    chosen = {name: TASKS[name] for name in names}
    claims: dict[tuple[str, str, float], list[tuple[str, ...]]] = {}
    for text in range(min(N_TEXTS, seeds)):
        tasks = task_set(part=text, tasks=chosen)
        plans = {name: plan_of(tasks, name, n) for name in chosen}
        for seed in range(text, seeds, N_TEXTS):
            for name, plan in plans.items():
                for key, results in of_copiers(tasks, of_seed(plan, n, seed), seed).items():
                    claims.setdefault((name, *key), []).append(taken_in(results))
            tasks.forget()
    return [_row(*key, found) for key, found in claims.items()]


def plan_of(tasks: TaskSet, task: str, n: int) -> Plan:
    """Lengths and strata of one task, with the controls of the gates."""
    own = {"tasks": [task], "lengths": LENGTHS, "n": n} | GRIDS.get(task, {})
    grids = [
        own | {"controls": ["none", "wrong_key"]},
        own | {"lengths": [1], "controls": ["zero_distance", "no_needle"]},
    ]
    return tasks.plan([build(Grid, grid, "grid") for grid in grids], CONTEXT)


def of_copiers(tasks: TaskSet, plan: Plan, seed: int) -> dict[tuple[str, float], Results]:
    """The report's findings about each copier, by policy and probability of true retrieval."""
    tokenizer = tasks.tokenizer
    others = [replace(unit, first=unit.first + (1 << 20)) for unit in plan.units if unit.control == "none"]
    known = [Item(episode, query) for unit in others for episode in tasks.episodes(unit) for query in episode.queries]
    stats, observations = collect_statistics(known, tokenizer), {}
    found: dict[tuple[str, float], Results] = {}
    for policy in COPIED:
        for p in FOUND:
            store, scorer = MemoryStore(), Copier(policy, p, seed, tokenizer, stats, observations)
            subject = ProbedCheckpoint("oracle", f"{seed:016x}", 1, 1)
            ids = run_plan(plan, tasks, scorer, subject, store, batch_tokens=1 << 20, scoring="teacher_forced")
            found[policy, p] = analyse(study_of(tasks, plan), store.read(ids))
    return found


def taken_in(results: Results) -> tuple[str, ...]:
    """What a report claims that is false of a copier, or, for places, of every mixture."""
    claims = [f"look-up {gate.lookup}" for gate in results.gates if gate.lookup in ("acquired", "partly")]
    claims += ["effective length" for e in results.extrapolations if e.effective is not None]
    return (*claims, *dict.fromkeys(c.kind for c in results.of(*PLACES) if c.resolved))


def _row(task: str, policy: str, p: float, claims: list[tuple[str, ...]]) -> dict[str, Any]:
    counts, seeds = Counter(claim for own in claims for claim in own), len(claims)
    kinds: dict[str, Callable[[str], bool]] = {
        "look-up": lambda c: c.startswith("look-up"),
        "effective length": lambda c: c == "effective length",
        "place": lambda c: c in PLACES,
    }
    row: dict[str, Any] = {"copies": policy, "task": task, "finds": p, "seeds": seeds}
    for kind, belongs in kinds.items():
        row[kind] = sum(any(map(belongs, own)) for own in claims)
    false = [own for own in claims if any(kinds["place"](c) or p == 0 for c in own)]
    low, high = wilson(len(false), seeds)
    row |= {"false": round(len(false) / seeds, 3), "low": round(float(low), 3), "high": round(float(high), 3)}
    row["at most 0.05"] = "yes" if len(false) <= 0.05 * seeds else "no"
    row["claims"] = ", ".join(f"{claim} {count}" for claim, count in counts.most_common())
    return row


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes for the reader of the rows."""
    return [
        "finds: probability that the value is found by its key. 0 is a pure copier: look-up, effective length and "
        "place are all false of it. Of a mixture, look-up and an effective length are true, and places are false.",
    ]
