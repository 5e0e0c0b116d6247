"""Evaluations by processes that share contexts, whose second one is forked from the first, which has imported
everything, and to which something happens in the middle of a pass (`validation.faults.dividing`)."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from lcprobe.studies.evaluation.dividing import follower, processes
from tests.tiny import CONTEXT
from validation.faults.dividing import at_pass

NOTHING = "nothing"


class Forked:
    """What the first process asks of a Popen."""

    def __init__(self, arguments: list[str], environment: dict[str, str], kind: str, folder: Path, number: int):
        self.returncode: int | None = None
        self._one = threading.Lock()
        self.pid = os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            os.environ.update(environment)
            if kind != NOTHING:
                at_pass(kind, folder, number)
            follower.main(arguments)

    def poll(self) -> int | None:
        with self._one:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("the second process", timeout)
            time.sleep(0.01)
        return self.returncode or 0

    def kill(self) -> None:
        os.kill(self.pid, 9)


def _first(main: str, arguments: list[str], log: str, kind: str, folder: str, number: int) -> None:
    import torch

    from lcprobe.cli import commands

    torch.set_num_threads(1)
    os.setpgid(0, 0)
    sys.stdout = sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
    plain = subprocess.Popen

    def popen(command, *args, **options):
        if processes.FOLLOWER in command:
            return Forked(command[3:], options["env"], kind, Path(folder), number)
        return plain(command, *args, **options)

    processes.subprocess.Popen = popen
    os._exit(getattr(commands, main)(arguments))


def ended(
    main: str, arguments: list[str], folder: Path, kind: str = NOTHING, number: int = 1
) -> tuple[int | None, str]:
    """The exit code of a command, and what it printed. kind: what happens to the second process in its pass of that
    number; folder: for the log."""
    log = folder / "log"
    process = CONTEXT.Process(target=_first, args=(main, arguments, str(log), kind, str(folder), number))
    process.start()
    process.join(200)
    if process.is_alive():
        process.kill()
    return process.exitcode, log.read_text()
