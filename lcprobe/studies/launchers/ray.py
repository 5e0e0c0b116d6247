"""Workers as tasks of a Ray cluster (pip install 'lcprobe[ray]'), each a child of the task's process, so that a
signal reaches it and nothing else. They are told to end by a file in the study's folder: a task that Ray cancels is
over before its child has saved. Ray finds the places; that a worker is replaced is our own doing."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

from lcprobe.errors import ConfigError, Said, shown
from lcprobe.locks import end_tree
from lcprobe.studies.launchers.config import RayConfig
from lcprobe.studies.launchers.contract import Launcher, Started, Task, last_line_of

NOW = "now"
"""In the file that tells a worker to end: at once."""
LOOK_SECONDS = 0.2
"""Between two looks at that file."""


class Ray(Launcher[RayConfig]):
    """Tasks of a Ray cluster."""

    Config = RayConfig
    _started = False

    @property
    def retries(self) -> int:
        """See Launcher."""
        return self.config.retries

    def check(self) -> None:
        """See Launcher. A cluster that has an address is connected to: until this process ends, or leaves the
        launcher."""
        _ray()
        if self.config.address and self.config.address.startswith("ray://"):
            try:
                import_module("grpc")
            except ImportError:
                allowed = "HOST:6379, or pip install 'lcprobe[ray]', whose ray[client] such an address needs"
                raise ConfigError("launcher.address", self.config.address, allowed) from None
        if self.config.address:
            before = signal.getsignal(signal.SIGTERM)
            self._begin()
            if before is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray has put its own there

    def __enter__(self) -> "Ray":
        self.check()
        self._begin()
        return self

    def _begin(self) -> None:
        """Connect to the cluster, or start one, unless that is done."""
        ray = _ray()
        if not ray.is_initialized():
            here = {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}  # else 15: a busy machine
            own: dict[str, Any] = {} if self.config.address else here
            try:
                ray.init(address=self.config.address, log_to_driver=False, logging_level="error", **own)
            except Exception as error:  # of Ray, gRPC or the system: whichever of them does not get that far
                raise _not_begun(self.config.address, error) from error
            self._started = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            _ray().shutdown()

    def places(self, task: Task) -> int:
        """As many as the cluster has room for."""
        has = _ray().cluster_resources()
        room = int(has.get("CPU", 0) // (self.config.num_cpus * task.devices))
        if gpus := self._gpus(task):
            room = min(room, int(has.get("GPU", 0) // gpus))
        most = min(task.count, self.config.workers or task.count, room)
        if most < 1:
            allowed = f"less than the cluster has ({has.get('CPU', 0):g} CPUs, {has.get('GPU', 0):g} GPUs)"
            raise ConfigError("launcher", f"{self.config.num_cpus * task.devices:g} CPUs, {gpus:g} GPUs", allowed)
        return most

    def start(self, task: Task, places: Sequence[int]) -> list[Started]:
        """See Launcher."""
        ray, config = _ray(), self.config
        remote = ray.remote(num_cpus=config.num_cpus * task.devices, num_gpus=self._gpus(task), max_retries=0)(run)
        task.logs.mkdir(parents=True, exist_ok=True)
        started: list[Started] = []
        for place in places:
            log = (task.logs / f"ray-{place}.log").resolve()
            _stop_file(log).unlink(missing_ok=True)
            own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, int(config.num_cpus))))}
            started.append(RayWorker(remote.remote(task.command, str(Path.cwd()), str(log), own), place, log))
        return started

    def _gpus(self, task: Task) -> float:
        has = _ray().cluster_resources().get("GPU", 0)
        return self.config.num_gpus or (float(task.devices) if has else 0.0)


@dataclass(frozen=True)
class RayWorker:
    """A task; see Started."""

    task: Any
    place: int
    log: Path

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"Ray task {self.place}"

    def exit_code(self) -> int | None:
        """See Started; 1 for a task that Ray lost."""
        ray = _ray()
        ready, _ = ray.wait([self.task], timeout=0)
        if not ready:
            return None
        try:
            return int(ray.get(self.task))
        except ray.exceptions.RayError:
            return 1

    def last_line(self) -> str:
        """See Started."""
        return last_line_of(self.log)

    def stop(self, now: bool) -> None:
        """See Started."""
        _stop_file(self.log).write_text(NOW if now else "", encoding="utf-8")
        if now:
            _ray().wait([self.task], timeout=10 * LOOK_SECONDS)


def run(command: list[str], folder: str, log: str, own: dict[str, str]) -> int:
    """A task: the worker as a child, and its exit code."""
    with open(log, "ab") as out:
        given = {**os.environ, **own}
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=given)
        try:
            while (code := child.poll()) is None:
                time.sleep(LOOK_SECONDS)
                if (told := _told(_stop_file(Path(log)))) is not None:
                    if told == NOW:
                        end_tree(child.pid)
                    else:
                        child.send_signal(signal.SIGTERM)
                    while child.poll() is None and _told(_stop_file(Path(log))) == told:
                        time.sleep(LOOK_SECONDS)
            return code
        finally:
            if child.poll() is None:
                end_tree(child.pid)


def _not_begun(address: str | None, error: Exception) -> ConfigError:
    """The error for a cluster that is not reached, or not started."""
    if address is None:
        line = next(iter(str(error).strip().splitlines()), "")
        given = Said(f"ray does not start here ({type(error).__name__}: {shown(line)})")
        return ConfigError("launcher", given, "local | slurm, or launcher.address of a running cluster")
    given = Said(f"no Ray cluster is reached at {address} ({type(error).__name__})")
    allowed = "auto (`ray start` began one here), HOST:6379, ray://HOST:10001, or none, which starts one"
    return ConfigError("launcher.address", given, allowed)


def _stop_file(log: Path) -> Path:
    return log.with_suffix(".stop")


def _told(stop: Path) -> str | None:
    try:
        return stop.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return import_module("ray")
    except ImportError:
        raise ConfigError("launcher", "ray without Ray", "local | slurm, or pip install 'lcprobe[ray]'") from None
