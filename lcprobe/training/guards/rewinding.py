"""Going back to a checkpoint before a bad step, with the steps around a bad one left out from then on.

A step that is left out changes neither weights nor moments, and its place in the data digest says so. Which ones they
are is written into the run's folder before training goes on: a resumed run leaves out the same.
"""

import gc
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from lcprobe.errors import NumericsError
from lcprobe.files import read_json, write_json
from lcprobe.training.checkpoint import checkpoints, damage_of
from lcprobe.training.config import GuardsConfig
from lcprobe.training.guards.judge import REMEDY, Rewind
from lcprobe.training.ranks import is_main, same_for_all

REWINDS = "rewinds.json"
"""In a run's folder: every rewind so far."""
LEFT_OUT_ROWS = ("left out",)
"""What the data digest has in place of the rows of a step that is left out."""
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rewound:
    """One rewind. step: the bad one; checkpoint: the step that training went back to; first, until: steps that are
    left out from then on, `until` excluded."""

    step: int
    why: str
    checkpoint: int
    first: int
    until: int


@dataclass(frozen=True)
class LeftOut:
    """The steps of a run that are left out."""

    rewinds: tuple[Rewound, ...] = ()

    def has(self, step: int) -> bool:
        """Whether a step is left out."""
        return any(one.first <= step < one.until for one in self.rewinds)

    @property
    def facts(self) -> dict[str, Any]:
        """For status.json; nothing where there is none."""
        return {"rewinds": [asdict(one) for one in self.rewinds]} if self.rewinds else {}


def read_left_out(folder: Path) -> LeftOut:
    """The steps that a run leaves out, by its folder."""
    path = folder / REWINDS
    return LeftOut(tuple(Rewound(**one) for one in read_json(path))) if path.is_file() else LeftOut()


def with_rewinds(config: GuardsConfig, every: int, folder: Path, attempt: Callable[[], T]) -> T:
    """What `attempt` returns, which is called again after each rewind and begins with the newest checkpoint. every:
    steps between checkpoints. All processes call it. Raises NumericsError after too many of them, and what `attempt`
    raises."""
    while True:
        try:
            return attempt()
        except Rewind as error:
            bad = Rewind(error.step, error.why)  # without what the attempt had in memory
        gc.collect()
        failure = same_for_all(lambda bad=bad: _record(config, every, folder, bad) if is_main() else "")
        if failure:
            raise NumericsError(failure)


def _record(config: GuardsConfig, every: int, folder: Path, bad: Rewind) -> str:
    """Go back, and write it down; the reason where there were too many."""
    before = read_left_out(folder).rewinds
    if len(before) >= config.rewinds:
        return f"step {bad.step}: {bad.why}, after {len(before)} rewinds; allowed: {config.rewinds} ({REMEDY})"
    first, until = max(0, bad.step - config.leave_out), bad.step + config.leave_out + 1
    start = _go_back(folder / "checkpoints", first, every)
    write_json(folder / REWINDS, [asdict(one) for one in (*before, Rewound(bad.step, bad.why, start, first, until))])
    where = f"step {start}" if start <= first else f"step {start} (no earlier checkpoint is left)"
    log.warning(
        "step %d: %s; back to %s, and steps %d to %d are left out", bad.step, bad.why, where, first, until - 1
    )
    return ""


def _go_back(folder: Path, first: int, every: int) -> int:
    """Remove the checkpoints after the newest at or before a step, so that what follows does not depend on when they
    were saved: `save_checkpoint` keeps one for that. Before the first one was due, all of them. Where older ones are
    gone (they were saved without guards that rewind, or are damaged), those after the oldest. The step that training
    goes back to. A kill before the rewind is written down meets the bad step again."""
    found = [(step, path) for step, path in checkpoints(folder) if damage_of(path) is None]
    start = next((step for step, _ in found if step <= first), None)
    if start is None:
        from_the_start = first < every and not any(folder.glob("bad-*"))
        start = 0 if from_the_start or not found else found[-1][0]
    for step, path in found:
        if step > start:
            aside = path.with_name(f".tmp-{path.name}")  # which is deleted later, where this is killed
            path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    return start
