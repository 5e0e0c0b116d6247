"""Rows of the table for faults of workers: the launcher's command with the fault, the same command again, and the
study against one that a single process trained, or probed."""

import re
import time
from pathlib import Path
from typing import Any

from lcprobe.errors import CheckpointError
from lcprobe.files import digest_file
from lcprobe.training.checkpoint import latest
from validation.faults import workers
from validation.faults.harness import STEPS, Ended, Place, at_step, kill_self, probe, run, step_saved
from validation.faults.harness import records as records_of
from validation.faults.workers import RUNS, WorkersFault, befallen, home, in_run, noted, states, steps_made, write_two

BATCH = 256


class TwoRuns:
    """Studies of two runs that faults of workers begin with, made when one is first asked for. fresh: with prepared
    text and nothing trained."""

    def __init__(self, folder: Path, fresh: Place):
        self._folder, self._made, self._fresh = folder, 0, fresh.copied(folder / "fresh")
        write_two(self._fresh)
        self._whole: dict[int, Place] = {}
        self._begun: Place | None = None
        self._records: list[tuple[Any, ...]] | None = None

    def place(self, fault: WorkersFault) -> Place:
        """A study for a fault."""
        if fault.trained:
            return self._copy(self.whole(STEPS))
        return self._copy(self.begun if fault.begun else self._fresh)

    def whole(self, steps: int) -> Place:
        """The study that nothing befell."""
        if steps not in self._whole:
            place = self._copy(self._fresh)
            ended = run(place, [f"train.tokens={BATCH * steps}"])
            assert ended.code == 0, ended.text
            self._whole[steps] = place
        return self._whole[steps]

    @property
    def begun(self) -> Place:
        """Killed when the first of its runs had 8 steps."""
        if self._begun is None:
            self._begun = self._copy(self._fresh)
            run(self._begun, [], lambda place: at_step(9, kill_self))
            assert step_saved(self._begun) == 8, "killed after its second checkpoint"
        return self._begun

    @property
    def records(self) -> list[tuple[Any, ...]]:
        """Of the study that one process probed."""
        if self._records is None:
            place = self._copy(self.whole(STEPS))
            ended = probe(place)
            assert ended.code == 0, ended.text
            self._records = records_of(place)
        return self._records

    def _copy(self, place: Place) -> Place:
        self._made += 1
        return place.copied(self._folder / f"{self._made}")


def weights_of(place: Place) -> dict[str, str]:
    """Digests of the final weights of both runs."""
    found = {}
    for name in RUNS:
        try:
            newest = latest(home(place) / name / "checkpoints")
        except CheckpointError:
            newest = None
        found[name] = "" if newest is None else digest_file(newest / "model.safetensors")
    return found


def row_of_workers(fault: WorkersFault, two: TwoRuns) -> dict[str, Any]:
    """Put a fault into workers, and run the same command again, with nothing put into any."""
    place, begin = two.place(fault), time.perf_counter()
    if fault.damage is not None:
        fault.damage(place)
    words = [*fault.given, *([] if fault.trained else [f"train.tokens={BATCH * fault.steps}"])]
    ended = befallen(place, fault, words)
    said = [line for line in ended.text.splitlines() if fault.says and fault.says in line]
    right = ended.code == fault.code and len(said) == bool(fault.says)
    if fault.states is not None:
        right &= states(place) == sorted(fault.states) and fault.failures in (None, noted(place))
    right &= fault.bit is None or fault.bit(place)
    if fault.mend is not None:
        fault.mend(place)
    count = None if fault.inject is None else in_run("", 0, kill_self)
    again = befallen(place, WorkersFault("", "", 0, "", trained=fault.trained, inject=count), words)
    workers.wait_for_workers(place)
    expected = two.records if fault.trained else weights_of(two.whole(fault.steps))
    equal = (records_of(place) if fault.trained else weights_of(place)) == expected
    return {
        "fault": fault.name,
        "done": fault.done,
        "exit code": ended.code,
        "says": _shown(said, ended, place),
        "as expected": right and again.code == 0 and equal,
        "again": again.code,
        "lost": _lost(fault, place),
        "equal": equal,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _shown(said: list[str], ended: Ended, place: Place) -> str:
    lines = [line for line in ended.text.splitlines() if line.strip()]
    line = (said or (lines[-1:] if ended.code not in (0, -9) else []) or [""])[-1]
    return re.sub(r"\s+", " ", line.replace(str(place.folder), "FOLDER"))[:400]


def _lost(fault: WorkersFault, place: Place) -> str:
    if fault.inject is None:
        return "not counted"
    repeated = steps_made(place) - len(RUNS) * fault.steps
    return f"{repeated} steps repeated" if repeated else "nothing"
