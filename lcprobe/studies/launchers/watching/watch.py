"""Starts workers and watches them: replaces those that die, stops all of them when told to.

A worker that ends while there is work left is replaced as long as the study goes on. So many deaths in a row without
anything done in between, and the rest is left; so many ends of one place's workers that stopped to be continued (75),
too: many may stop at once, of which none did anything. One that goes on when nothing is left (it stands still, and
another has done what it had; or it waits in a queue) is ended.
"""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lcprobe.errors import TOLD_TO_END, LcprobeError, StoppedEarly, Terminated, ending
from lcprobe.studies.launchers.contract import Launcher, Started, Task
from lcprobe.studies.launchers.work.failures import FINAL, as_command
from lcprobe.words import counted

log = logging.getLogger(__name__)
POLL_SECONDS, LOOK_SECONDS = 0.2, 2.0
"""Between two looks at the workers, and at the work."""
END_SECONDS = 120.0
"""In which a worker ends when nothing is left."""
NOTHING = "it printed nothing"


class WorkersDied(LcprobeError):
    """Workers ended, again and again, without having done anything. exit_code: what their last one says."""

    def __init__(self, worker: str, code: int, line: str):
        self.exit_code = as_command(code)
        if code in FINAL:  # its own line says what has to change
            super().__init__(f"{worker}: {line.removeprefix('error: ') or ending(code)}")
            return
        allowed = "the same command again, once that is mended"
        super().__init__(f"{worker} {ending(code)} and work is left: {line or NOTHING}; allowed: {allowed}")


@dataclass
class _Stop:
    """signal: with which this process was told to end; 0: it was not. times: how often."""

    signal: int = 0
    times: int = 0


@dataclass
class Watch:
    """left: whether something is neither done nor given up, of what a place is for. done: a number that grows when
    anything is done. show: called every LOOK_SECONDS; died: with the exit code of a worker that ended before its
    work did, and its last line."""

    launcher: Launcher
    task: Task
    left: Callable[[int], bool]
    done: Callable[[], float]
    show: Callable[[], None] = lambda: None
    died: Callable[[int, str], None] = lambda code, line: None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _running: dict[int, Started] = field(default_factory=dict)

    def run(self) -> None:
        """Until nothing is left and every worker has ended. Raises KeyboardInterrupt or Terminated when told to end
        (the workers have, by then), and WorkersDied."""
        with self.launcher, _told_to_end() as told:  # in this order: Ray has handlers of its own
            try:
                self._start(list(range(self.launcher.places(self.task))))
                self._until_none_is_left(told)
            except BaseException:
                for worker in self._running.values():
                    worker.stop(now=True)
                raise
        if told.times:
            raise KeyboardInterrupt if told.signal == signal.SIGINT else Terminated(signal.Signals(told.signal).name)

    def _until_none_is_left(self, told: _Stop) -> None:
        deaths, best, looked, stopped = 0, self.done(), self.clock(), 0
        busy = looked  # when something was left at last
        stops: dict[int, int] = {}
        while self._running:
            self.sleep(POLL_SECONDS)
            if told.times > stopped:  # once: save and end; twice: end
                for worker in self._running.values():
                    worker.stop(now=told.times > 1)
                if not stopped:
                    log.info("stopping %s; again: at once", counted(len(self._running), "worker"))
                stopped = told.times
            if self.clock() - looked >= LOOK_SECONDS:
                looked = self.clock()
                self.show()
                busy = looked if any(map(self.left, self._running)) else busy
                if looked - busy > END_SECONDS:
                    busy = looked
                    for worker in self._running.values():
                        log.warning("%s: ended, as nothing is left and it goes on", worker.name)
                        worker.stop(now=True)
            ended = {place: code for place, one in self._running.items() if (code := one.exit_code()) is not None}
            if not ended:
                continue
            gone = {place: self._running.pop(place) for place in ended}
            again = [] if stopped else [place for place in sorted(ended) if self.left(place)]
            now = self.done() if again else best
            moved, best = now > best, max(now, best)
            if moved:
                deaths, stops = 0, {}
            dead = [place for place in again if ended[place] != StoppedEarly.exit_code or not moved]
            for place in dead:
                self.died(ended[place], gone[place].last_line())
            again = [place for place in again if self.left(place)]  # what they had may be given up by now
            for place in dead:
                code, worker = ended[place], gone[place]
                log.warning("%s %s: %s", worker.name, ending(code), worker.last_line() or NOTHING)
                if place not in again:
                    continue
                if code != StoppedEarly.exit_code:
                    deaths += 1
                else:
                    stops[place] = stops.get(place, 0) + 1
                if max(deaths, stops.get(place, 0)) > self.launcher.retries or code == LcprobeError.exit_code:
                    raise WorkersDied(worker.name, code, worker.last_line())
            self._start(again)
        self.show()

    def _start(self, places: list[int]) -> None:
        if places:
            self._running |= dict(zip(places, self.launcher.start(self.task, places), strict=True))


@contextmanager
def _told_to_end() -> Iterator[_Stop]:
    """Signals to end are counted while the block runs."""
    told = _Stop()

    def end(number: int, frame: object) -> None:
        told.signal, told.times = told.signal or number, told.times + 1

    before = {}
    for number in (signal.SIGINT, *TOLD_TO_END):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, end)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
