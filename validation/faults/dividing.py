"""Faults of two processes that share contexts (probe.context_parallel), in the middle of a pass, in which each waits
for messages of the other. The second one is this module, which does what `AT_PASS` says and is otherwise the
program's own."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lcprobe.probing.engines.split import leading
from lcprobe.studies.evaluation.dividing import follower, processes
from validation.faults.harness import Fault, Place
from validation.faults.records import _no_records

PASS = 12
"""Of the second process: the one in which something happens to it."""
AT_PASS, IN_FOLDER = "VALIDATION_AT_PASS", "VALIDATION_IN_FOLDER"
"""Environment of the second process: what happens to it, and where it leaves its number."""
NUMBER = "second-process"
SECONDS = 60.0
"""For what is about to come."""


def stop() -> None:
    """SIGSTOP."""
    os.kill(os.getpid(), signal.SIGSTOP)


def die() -> None:
    """SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_unseen() -> None:
    """SIGKILL, of which the first hears nothing, as with NCCL: another process keeps the connections open until the
    first is gone."""
    first = os.getppid()
    if os.fork() == 0:
        while _state(first) not in ("", "Z"):
            time.sleep(0.05)
        os._exit(0)
    die()


def no_memory() -> None:
    """More memory than there is."""
    torch.empty(1 << 50)


def stop_and_tell() -> None:
    """SIGSTOP, and SIGTERM to the first once it waits for this one."""
    _tell(lambda first: os.kill(first, signal.SIGTERM))


def stop_and_interrupt() -> None:
    """SIGSTOP, and SIGINT to the group of the first, as a terminal sends it, once that waits for this one."""
    _tell(lambda first: os.killpg(os.getpgid(first), signal.SIGINT))


def kill_first() -> None:
    """SIGKILL to the first, and this one is stopped."""
    _tell(lambda first: os.kill(first, signal.SIGKILL))


KINDS: dict[str, Callable[[], None]] = {
    kind.__name__: kind for kind in (stop, die, die_unseen, no_memory, stop_and_tell, stop_and_interrupt, kill_first)
}


def _tell(send: Callable[[int], None]) -> None:
    own, first = os.getpid(), os.getppid()
    if os.fork() == 0:
        for _ in _waiting(lambda: _state(own) == "T" and _waits(first)):
            time.sleep(0.02)
        send(first)
        os._exit(0)
    stop()


def _waits(process: int, looks: int = 10) -> bool:
    """Whether the main thread of a process waits for something, and does not compute meanwhile."""
    used = _seconds(process)
    for _ in range(looks):
        if _state(process) != "S":
            return False
        time.sleep(0.02)
    return _seconds(process) == used


def _waiting(until: Callable[[], bool]) -> Iterator[None]:
    end = time.monotonic() + SECONDS
    while not until() and time.monotonic() < end:
        yield


def _state(process: int) -> str:
    """R, S, T, Z ... of the main thread; empty for a process that is gone."""
    return next(iter(_stat(process)), "")


def _seconds(process: int) -> list[str]:
    """CPU time of the main thread, in clock ticks of the user and of the system."""
    return _stat(process)[11:13]


def _stat(process: int) -> list[str]:
    try:
        path = Path(f"/proc/{process}/task/{process}/stat")
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def at_pass(kind: str, folder: Path, number: int = PASS) -> None:
    """Have this process, a follower, do something in its pass of that number, unless another one has done it."""
    plain, passes = leading._made, [0]

    def made(model: Any, device: Any, states: Any, work: Any) -> Any:
        passes[0] += isinstance(work, leading.Pass)
        if isinstance(work, leading.Pass) and passes[0] == number and not (folder / NUMBER).exists():
            (folder / NUMBER).write_text(str(os.getpid()))
            KINDS[kind]()
        return plain(model, device, states, work)

    leading._made = made


def _second(kind: str) -> Callable[[Place], None]:
    """Put a fault into the second process of an evaluation, which the first one, this process, starts."""

    def inject(place: Place) -> None:
        os.setpgid(0, 0)  # what is sent to the group of the first is not to reach the one that measures
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background
        os.environ |= {AT_PASS: kind, IN_FOLDER: str(place.folder)}
        processes.FOLLOWER = __name__

    return inject


def second_is_gone(folder: Path) -> bool:
    """Whether the second process did what it was to do, and does not run any more."""
    try:
        number = int((folder / NUMBER).read_text())
    except OSError:
        return False
    for _ in _waiting(lambda: _state(number) in ("", "Z")):
        time.sleep(0.02)
    return _state(number) in ("", "Z")


TWO = ("probe.context_parallel=2", "probe.chunk=16")
"""Of many passes."""
HANG = (*TWO, "probe.hang_minutes=0.05")
GONE = "error: another process of probe.context_parallel is gone: process 1 of 2 killed by SIGKILL"


def _fault(
    name: str, done: str, code: int, says: str, kind: str, arguments: tuple[str, ...] = TWO, by_worker: bool = False
) -> Fault:
    return Fault(
        f"shared context: {name}",
        f"{done}, in a pass that both share",
        code,
        says,
        records=True,
        damage=_no_records,
        inject=_second(kind),
        arguments=arguments,
        after=TWO,
        by_worker=by_worker,
        bit=lambda place: second_is_gone(place.folder),
    )


FAULTS = (
    _fault("stopped", "SIGSTOP to the second process", 75, "rank 1 gave no sign of life", "stop", HANG),
    _fault("killed", "SIGKILL to the second process", 75, GONE, "die"),
    _fault(
        "killed, of a worker",
        "SIGKILL to the second process of `lcprobe work`, which tries again",
        0,
        "one failed: another process of probe.context_parallel is gone: process 1 of 2 killed by SIGKILL",
        "die",
        by_worker=True,
    ),
    _fault("killed unseen", "SIGKILL to the second process, whose connections stay open", 75, GONE, "die_unseen"),
    _fault(
        "out of memory",
        "too much memory is asked for in the second process",
        2,
        "error: process 1 of 2: out of memory in a process that shares contexts with others; allowed: a smaller",
        "no_memory",
    ),
    _fault(
        "SIGTERM",
        "SIGSTOP to the second process, SIGTERM to the first, which waits for it",
        75,
        "stopped by SIGTERM: finished work is kept; the same command resumes",
        "stop_and_tell",
    ),
    _fault(
        "Ctrl-C",
        "SIGSTOP to the second process, SIGINT to the group of the first, which waits for it",
        130,
        "interrupted: finished work is kept; the same command resumes",
        "stop_and_interrupt",
    ),
    _fault(
        "first killed",
        "SIGSTOP to the second process, SIGKILL to the first, which waits for it",
        -9,
        "",
        "kill_first",
    ),
)

if __name__ == "__main__":
    at_pass(os.environ[AT_PASS], Path(os.environ[IN_FOLDER]))
    follower.main(sys.argv[1:])
