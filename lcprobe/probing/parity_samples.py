"""The samples by which a server is compared with a reference: a few of every part of a plan."""

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.units import Plan


def parity_pairs(plan: Plan, tasks: TaskSet, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(prompt, answer) of n samples of the plan, fewer where it has fewer: units in turn, in each the samples in
    order. Builds these samples alone."""
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
