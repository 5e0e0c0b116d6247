"""Processes that are forked from this one, which has imported everything, and are killed.

Ranks of one run have the environment that torchrun gives; where one is killed, the others are given some seconds to
end, as they must without it, and are killed then, as torchrun does.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from lcprobe.errors import run_command
from validation.forked import CONTEXT

PATIENCE = 30.0
"""Seconds in which processes end that were told to, or whose fellow was killed."""
HANGS = 600.0
"""Seconds after which an attempt that nobody kills is taken as hanging."""


class Attempt:
    """Forked processes of one command. ranks: whether they are those of one run, or each for itself."""

    def __init__(self, n: int, target: Callable[..., Any], args: Sequence[Any], log: Path, ranks: bool = True):
        self._log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environments = [{} if n == 1 or not ranks else _environment(n, rank, port) for rank in range(n)]
        self.processes: list[BaseProcess] = [
            CONTEXT.Process(target=_child, args=(target, args, environment, log)) for environment in environments
        ]
        for process in self.processes:
            process.start()

    @property
    def alive(self) -> bool:
        """Whether any process goes on."""
        return any(process.is_alive() for process in self.processes)

    @property
    def codes(self) -> list[int | None]:
        """Exit codes, by process; None: it goes on."""
        return [process.exitcode for process in self.processes]

    def wait(self, happened: Callable[[], bool], poll: float, seconds: float = HANGS) -> bool:
        """Wait until something has happened; False: all ended first. Raises RuntimeError where neither comes."""
        until = time.monotonic() + seconds
        while not happened():
            if not self.alive:
                return False
            if time.monotonic() > until:
                self.end()
                raise RuntimeError(f"no answer in {seconds:.0f} s: {self.said()}")
            time.sleep(poll)
        return True

    def hit(self, number: signal.Signals, victims: Sequence[int]) -> list[int]:
        """Send a signal to some of the processes; those that it reached alive and ended, by their exit codes. The
        others have ended, too, when this returns."""
        struck = [place for place in victims if self.processes[place].is_alive()]
        for place in struck:
            os.kill(_pid(self.processes[place]), number)
        until = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        self.end()
        return [place for place in struck if self.processes[place].exitcode != 0]

    def finish(self) -> None:
        """Wait for the end. Raises RuntimeError where it is none with exit code 0."""
        self.wait(lambda: False, 0.02)
        if any(self.codes):
            raise RuntimeError(f"exit codes {self.codes}: {self.said()}")

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            process.kill()
            process.join()

    def said(self) -> str:
        """The end of what was printed."""
        return self._log.read_text(errors="replace")[-2000:]


def _pid(process: BaseProcess) -> int:
    assert process.pid is not None
    return process.pid


def _environment(n: int, rank: int, port: int) -> dict[str, str]:
    here = {"WORLD_SIZE": n, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": n, "MASTER_PORT": port}
    return {name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"}


def _child(target: Callable[..., Any], args: Sequence[Any], environment: dict[str, str], log: Path) -> None:
    with open(log, "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ |= environment
    torch.set_num_threads(1)

    def body() -> int:
        code = target(*args)
        if distributed.is_initialized():  # no rank ends while another still speaks with it
            distributed.barrier()
            distributed.destroy_process_group()
        return code or 0

    code = 1
    try:
        code = run_command(body)
    finally:  # an error's traceback is printed by nobody after _exit
        if code == 1:
            import traceback

            traceback.print_exc()
        os._exit(code)
