"""Prefix sharing: which prompts have common prefixes, and a program that reads every common prefix once.

The prompts of a unit form a trie over token ids: depths of one sample share the haystack up to the earlier needle,
questions over one context share the context. All rows of a batch are at the same position and advance in lockstep;
where prompts branch, the state's row is copied. A call takes time whatever it reads, so prompts branch at multiples
of a grain only, slightly before they differ; the grain minimises the total cost of tokens and calls. If calls cost
nothing it is 1, and exactly the tokens of the trie are read.

The saving in a sweep of D depths is bounded: a prompt shares no more than its haystack up to its own needle with
deeper ones, and the deepest is read whole. So the share of the haystack's tokens that is saved is at most the sum of
all depths but the deepest, divided by D. For depths 0 .. 1 that is (D - 2) / 2D, 45 % at 20 depths; for 1/D .. 1 it
is (D - 1) / 2D, 47.5 %; for one in each of D strata it is (D - 1)^2 / 2D^2 on average, 45.1 %, and 32 % at 5. Needle
and question are not shared (`python -m benchmarks sharing`: 44.3 and 46.9 % of prompts of 1024 tokens).

Memory: at most `rows` rows are read together. Where more are active, those with few prompts below them are finished
first and the others wait as a state; a waiting state is dropped once the last of its rows continues.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cmp_to_key

import numpy as np

CALL_TOKENS = 64
"""The cost of a call, as the tokens that could be read in that time; only speed depends on it."""
MAX_GROUP = 256
"""The most prompts of a shared-prefix group that are scored and written together."""
MIN_SHARED = 1 / 16
"""Two prompts are in one group if they share more than this part of the shorter one."""

Group = tuple[int, int, int]
"""(row of the state, first, after last): sorted prompts that are equal so far."""


@dataclass(frozen=True)
class Step:
    """Reads tokens [lo, hi) of `prompts` (n,), one row each, continuing from the state after step `before`.

    before: None for a new state. source: (n,) rows of that state, None for all of them in order. last: no later step
    continues from `before`. kept: a later step continues from this one. ends: (row, prompt) of the prompts that are
    read to their end.
    """

    before: int | None
    source: np.ndarray | None
    prompts: np.ndarray
    lo: int
    hi: int
    ends: tuple[tuple[int, int], ...]
    last: bool = True
    kept: bool = False


@dataclass(frozen=True)
class Program:
    """Steps in order of execution. new: (n_prompts,) tokens that are read for each prompt and not for one before
    it."""

    steps: tuple[Step, ...]
    new: np.ndarray
    grain: int

    @property
    def tokens(self) -> int:
        """Tokens that the whole program reads."""
        return int(self.new.sum())


def plan_prefill(prompts: Sequence[np.ndarray], rows: int, call: int = CALL_TOKENS) -> Program:
    """The program for prompts of at least one token each, at most `rows` of them read together: a pure function of
    both.
    """
    order, common = _sorted(prompts)
    unique: list[list[int]] = []  # prompts that are equal, in sorted order
    lcps: list[int] = []
    for rank, i in enumerate(order):
        if rank and common[rank - 1] == len(prompts[i]) == len(prompts[order[rank - 1]]):
            unique[-1].append(i)
            continue
        if rank:
            lcps.append(common[rank - 1])
        unique.append([i])
    ends = np.array([len(prompts[same[0]]) for same in unique])
    lcp = np.array(lcps, dtype=np.int64)
    grain = min((1 << k for k in range(12)), key=lambda g: _cost(ends, lcp, g, call))
    new = np.zeros(len(prompts), dtype=np.int64)
    new[[same[0] for same in unique]] = _new(ends, lcp, grain)
    return Program(tuple(_Walk(unique, ends, lcp // grain * grain, grain, rows).steps()), new, grain)


def plan_whole(prompts: Sequence[np.ndarray], rows: int) -> Program:
    """The program that reads every prompt from its first token to its last in one step, equal ones once; at most
    `rows` of one length together. For models that read prefixes again in every call.
    """
    first: dict[bytes, int] = {}
    same: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        same.setdefault(first.setdefault(np.asarray(prompt, dtype=np.int64).tobytes(), i), []).append(i)
    by_length: dict[int, list[int]] = {}
    new = np.zeros(len(prompts), dtype=np.int64)
    for i in same:
        by_length.setdefault(len(prompts[i]), []).append(i)
        new[i] = len(prompts[i])
    size = max(1, rows)
    steps = [
        Step(None, None, np.array(batch), 0, n, tuple((row, j) for row, i in enumerate(batch) for j in same[i]))
        for n, alike in by_length.items()
        for batch in (alike[lo : lo + size] for lo in range(0, len(alike), size))
    ]
    return Program(tuple(steps), new, 1)


def prefix_batches(prompts: Sequence[np.ndarray], rows: int) -> list[list[int]]:
    """Prompts in batches of about `rows`, those with a common prefix together. A pure function of its arguments."""
    order, common = _sorted(prompts)
    runs: list[list[int]] = []
    for rank, i in enumerate(order):
        shares = rank and common[rank - 1] > MIN_SHARED * min(len(prompts[i]), len(prompts[order[rank - 1]]))
        if shares and len(runs[-1]) < max(rows, MAX_GROUP):
            runs[-1].append(i)
        else:
            runs.append([i])
    batches: list[list[int]] = []
    for run in runs:
        if batches and len(batches[-1]) + len(run) <= rows:
            batches[-1] += run
        else:
            batches.append(run)
    return batches


class _Walk:
    """From sorted prompts to steps. ends: (n,) lengths; branches: (n - 1,) where neighbours branch, in multiples of
    the grain.
    """

    def __init__(self, unique: list[list[int]], ends: np.ndarray, branches: np.ndarray, grain: int, rows: int):
        self._unique, self._ends, self._branches = unique, ends, branches
        self._grain, self._rows = grain, max(1, rows)

    def steps(self) -> list[Step]:
        """Depth first: the groups on the stack wait with their state."""
        steps: list[Step] = []
        stack: list[tuple[int | None, list[Group], int]] = [(None, [(0, 0, len(self._ends))], 0)]
        while stack:
            before, groups, lo = stack.pop()
            hi = min(self._next(group, lo) for group in groups)
            if hi > lo:  # not so where the very first tokens differ
                source = np.array([row for row, _, _ in groups])
                if before is not None and np.array_equal(source, np.arange(len(steps[before].prompts))):
                    source = None
                steps.append(Step(before, source, np.array([self._unique[a][0] for _, a, _ in groups]), lo, hi, ()))
                before = len(steps) - 1
                groups = [(row, a, b) for row, (_, a, b) in enumerate(groups)]
            split = [(row, *span) for row, a, b in groups for span in self._split(a, b, hi)]
            done = [(row, i) for row, a, _ in split if self._ends[a] == hi for i in self._unique[a]]
            if done:
                steps[-1] = replace(steps[-1], ends=tuple(done))
            batches = self._batches([group for group in split if self._ends[group[1]] > hi], hi)
            stack += [(before, batch, hi) for batch in reversed(batches)]
        last_user = {step.before: number for number, step in enumerate(steps)}
        return [
            replace(step, last=last_user[step.before] == number, kept=number in last_user)
            for number, step in enumerate(steps)
        ]

    def _next(self, group: Group, lo: int) -> int:
        """Where a group branches, or its only prompt stops for the last, short piece, or ends."""
        _, a, b = group
        if b > a + 1:
            return int(self._branches[a : b - 1].min())
        short = int(self._ends[a]) // self._grain * self._grain
        return short if short > lo else int(self._ends[a])

    def _split(self, a: int, b: int, at: int) -> list[tuple[int, int]]:
        edges = [a, *(np.flatnonzero(self._branches[a : b - 1] <= at) + a + 1).tolist(), b]
        return list(zip(edges, edges[1:], strict=False))

    def _batches(self, groups: list[Group], at: int) -> list[list[Group]]:
        """Groups that are read together, in the order of reading: last pieces by length, then those with fewer
        prompts first, so that few states wait at a time.
        """
        short: dict[int, list[Group]] = {}
        for group in groups:
            ending = group[2] == group[1] + 1 and self._ends[group[1]] // self._grain * self._grain <= at
            short.setdefault(int(self._ends[group[1]]) if ending else 0, []).append(group)
        longer = sorted(short.pop(0, []), key=lambda group: group[2] - group[1])
        if len(longer) <= self._rows:
            longer.sort(key=lambda group: group[1])
        pieces = [*(short[end] for end in sorted(short)), longer]
        return [piece[i : i + self._rows] for piece in pieces for i in range(0, len(piece), self._rows)]


def _sorted(prompts: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Lexicographic order, equal ones by number, and the (n - 1) numbers of tokens that neighbours have in common."""

    def compare(i: int, j: int) -> int:
        a, b = prompts[i], prompts[j]
        at = common(a, b)
        if at < min(len(a), len(b)):
            return -1 if a[at] < b[at] else 1
        return len(a) - len(b) or i - j

    order = sorted(range(len(prompts)), key=cmp_to_key(compare))
    return order, [common(prompts[i], prompts[j]) for i, j in zip(order, order[1:], strict=False)]


def common(a: np.ndarray, b: np.ndarray) -> int:
    """The number of tokens in the common prefix of two prompts."""
    n, at, size = min(len(a), len(b)), 0, 64
    while at < n:
        stop = min(at + size, n)
        differ = a[at:stop] != b[at:stop]
        if differ.any():
            return at + int(differ.argmax())
        at, size = stop, 2 * size
    return n


def _new(ends: np.ndarray, lcp: np.ndarray, grain: int) -> np.ndarray:
    """(n,) tokens of each sorted prompt that are not read for the one before it; the last, short piece is never
    shared.
    """
    shared = np.concatenate([[0], lcp // grain * grain])
    return ends - shared


def _cost(ends: np.ndarray, lcp: np.ndarray, grain: int, call: int) -> tuple[int, int]:
    """The cost of tokens and calls, in tokens, and the grain, so that the finer one of two that cost the same is
    chosen.
    """
    short = ends // grain * grain
    stops = len({0, *(lcp // grain * grain).tolist(), *short.tolist()}) - 1
    tails = len({int(end) for end, at in zip(ends, short, strict=True) if end > at})
    return int(_new(ends, lcp, grain).sum()) + call * (stops + tails), grain
