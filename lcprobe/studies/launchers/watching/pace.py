"""How long the rest of a study takes, from what was measured of it: units that are done give the pace of their model,
else of all of their kind; a unit in hand its own. Trials come before runs; the rest is shared out among the workers,
the longest first, as they take it."""

import heapq
from collections.abc import Iterable, Sequence

from lcprobe.studies.launchers.watching.state import StudyState, UnitState

STAGES = (("trial",), ("run",), ("model",))


def share_done(units: Iterable[UnitState]) -> float:
    """Of the planned sizes of units of one kind after the other, each kind as its own whole."""
    units = list(units)
    kinds = [[unit for unit in units if unit.kind == kind] for kind in ("trial", "run", "model")]
    weights = [(sum(u.size for u in own), sum(u.size * u.share for u in own)) for own in kinds if own]
    training = weights[: len([own for own in kinds[:2] if own])]
    parts = [training] if training else []
    parts += [[one] for one in weights[len(training) :]]
    shares = [sum(done for _, done in part) / max(sum(size for size, _ in part), 1.0) for part in parts]
    return sum(shares) / max(len(shares), 1)


def seconds_left(state: StudyState, workers: int | None = None) -> float | None:
    """Until everything that is not given up is done; None where something is left of whose pace nothing is known.
    workers: at work; None: as many as there are now, at least one."""
    busy = {(w.host, w.pid) for unit in state.units for w in unit.workers}
    count = max(1, workers or len(busy) + state.idle)
    total = 0.0
    for kinds in STAGES:
        units = [unit for unit in state.units if unit.kind in kinds]
        left = [unit for unit in units if unit.state in ("running", "waiting")]
        times = [_left(unit, units) for unit in left]
        if any(one is None for one in times):
            return None
        known = [one for one in times if one is not None]
        # the groups of a model are shared out, a run is not
        total += sum(known) / count if kinds == ("model",) else makespan(known, count)
    return total


def makespan(times: Sequence[float], workers: int) -> float:
    """When the last of several pieces is done by so many workers, the longest taken first."""
    ends = [0.0] * workers
    for one in sorted(times, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def _left(unit: UnitState, alike: Sequence[UnitState]) -> float | None:
    """Seconds of one worker for what is left of a unit; None where no pace is known."""
    rest = 1.0 - unit.share
    if rest <= 0:
        return 0.0
    if unit.pace is not None:
        return rest * max(1, len(unit.workers)) / unit.pace if unit.kind == "model" else rest / unit.pace
    per_size = _seconds_per_size([one for one in alike if one.group == unit.group]) or _seconds_per_size(alike)
    return None if per_size is None else rest * unit.size * per_size


def _seconds_per_size(units: Iterable[UnitState]) -> float | None:
    seconds = sizes = 0.0
    for unit in units:
        if unit.pace is not None:
            each = max(1, len(unit.workers)) if unit.kind == "model" else 1
            seconds, sizes = seconds + each / unit.pace, sizes + unit.size
        elif unit.seconds > 0 and unit.share > 0:
            seconds, sizes = seconds + unit.seconds, sizes + unit.size * unit.share
    return seconds / sizes if sizes > 0 else None
