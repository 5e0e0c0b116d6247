"""Workers as processes of this machine: one for each GPU, or as many as are asked for, with the cores shared out."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcprobe.locks import end_tree
from lcprobe.studies.launchers.config import LocalConfig
from lcprobe.studies.launchers.contract import Launcher, Started, Task, last_line_of

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


class Local(Launcher[LocalConfig]):
    """Processes of this machine. gpus: that they share out, as CUDA_VISIBLE_DEVICES names them; None: all that are
    visible."""

    Config = LocalConfig

    def __init__(self, config: LocalConfig, gpus: Sequence[str] | None = None):
        super().__init__(config)
        self._gpus = visible_gpus() if gpus is None else list(gpus)

    @property
    def retries(self) -> int:
        """See Launcher."""
        return self.config.retries

    def places(self, task: Task) -> int:
        """One for each GPU, or each `devices` of them."""
        return min(task.count, self._most(task))

    def start(self, task: Task, places: Sequence[int]) -> list[Started]:
        """See Launcher."""
        task.logs.mkdir(parents=True, exist_ok=True)
        return [self._start(task, place) for place in places]

    def environment(self, task: Task, place: int) -> dict[str, str]:
        """What the worker at a place has of its own: its GPUs, its threads."""
        own: dict[str, str] = {}
        if self._gpus:
            shares = max(1, len(self._gpus) // task.devices)
            first = place % shares * task.devices
            own[VISIBLE] = ",".join(self._gpus[first : first + task.devices])
        if THREADS not in os.environ:
            own[THREADS] = str(max(1, cores() // (self.places(task) * task.devices)))
        return own

    def _most(self, task: Task) -> int:
        return self.config.workers or max(1, len(self._gpus) // task.devices)

    def _start(self, task: Task, place: int) -> Started:
        log = task.logs / f"{'-'.join(task.units)[:40]}-{place}.log"
        with open(log, "ab") as out:
            process = subprocess.Popen(
                task.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment(task, place)},
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which tells them
            )
        return LocalWorker(process, log)


@dataclass(frozen=True)
class LocalWorker:
    """A child process; see Started."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"worker {self.process.pid}"

    def exit_code(self) -> int | None:
        """See Started."""
        return self.process.poll()

    def last_line(self) -> str:
        """See Started."""
        return last_line_of(self.log)

    def stop(self, now: bool) -> None:
        """SIGTERM, or SIGKILL to it and its children."""
        if self.process.poll() is not None:
            return
        if now:
            end_tree(self.process.pid)
        else:
            self.process.send_signal(signal.SIGTERM)


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = (os.environ if environment is None else environment).get(VISIBLE)
    if given is not None and "," in given:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    count = torch.cuda.device_count()
    return [given] if given and count == 1 else [str(number) for number in range(count)]


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
