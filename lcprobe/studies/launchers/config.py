"""The launchers by name, and their settings. Imports no torch."""

import re
from dataclasses import dataclass, field

from lcprobe.choices import Registry
from lcprobe.errors import require

LAUNCHERS = Registry(
    "lcprobe.studies.launchers.contract:Launcher",
    {
        "local": "lcprobe.studies.launchers.local:Local",
        "slurm": "lcprobe.studies.launchers.slurm:Slurm",
        "ray": "lcprobe.studies.launchers.ray:Ray",
    },
)
"""What starts workers, by the name used in configs."""
MAX_WORKERS = 4096
_TIME = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?")


@dataclass(frozen=True)
class LocalConfig:
    """Processes of this machine."""

    workers: int | None = None
    """Processes at once; null: one for each visible GPU (for each `train.devices` of them), without GPUs one."""
    retries: int = 2
    """Times that a unit of work is tried again after a failure, counted from its last progress."""

    def check(self, at: str) -> None:
        """Raises ConfigError for numbers out of range."""
        check_workers(at, self.workers, self.retries)


@dataclass(frozen=True)
class SlurmConfig:
    """Jobs of SLURM: an array of workers, or, where a run has more GPUs than a node, one job for each run."""

    partition: str | None = None
    """Partition; null: SLURM's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    time: str = "4h"
    """Wall-clock limit of a job, such as 90m, 4h or 2d12h; work that is not done by then goes on in the next job."""
    gpus_per_job: int = 1
    """GPUs of a job, all of one node; 0: none. A job has a worker for each `train.devices` of them."""
    gpus_per_node: int = 8
    """GPUs of a node, for runs with more of them than `gpus_per_job`: these get whole nodes."""
    cpus_per_worker: int = 8
    """CPU cores of a worker."""
    memory: str | None = None
    """Memory of a job, such as 64GB."""
    jobs: int | None = None
    """Jobs of the array; null: one for each unit of work, at most 64."""
    at_once: int = 256
    """Jobs of the array that run at once, at most."""
    signal: int = 120
    """Seconds before the limit (and the notice that a pre-empted job has) in which work is saved."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the command, such as `module load cuda`."""
    wait: bool = True
    """Watch the jobs and write what comes last (the report); false: submit and end."""
    dry_run: bool = False
    """Print the batch scripts, write them into the study's folder and submit nothing; needs no submitit."""
    executor: str = "slurm"
    """slurm, or local: submitit's processes of this machine, to try the same path without SLURM."""
    retries: int = 2
    """Times that a unit of work is tried again after a failure, counted from its last progress, and that a job goes
    into the queue again with nothing saved since the last time."""

    def check(self, at: str) -> None:
        """Raises ConfigError for numbers and times out of range, and for texts that are no single line."""
        check_workers(at, self.jobs, self.retries, "jobs")
        require(f"{at}.time", self.time, minutes(self.time) > 0, "such as 90m, 4h or 2d12h")
        require(f"{at}.executor", self.executor, self.executor in ("slurm", "local"), "slurm | local")
        for name, least in (("gpus_per_job", 0), ("gpus_per_node", 1), ("cpus_per_worker", 1), ("at_once", 1)):
            given = {"gpus_per_job": self.gpus_per_job, "gpus_per_node": self.gpus_per_node}
            given |= {"cpus_per_worker": self.cpus_per_worker, "at_once": self.at_once}
            require(f"{at}.{name}", given[name], least <= given[name] <= MAX_WORKERS, f"{least} .. {MAX_WORKERS}")
        require(f"{at}.signal", self.signal, 1 <= self.signal < 60 * minutes(self.time), "1 .. less than time")
        words = {"partition": self.partition, "account": self.account, "qos": self.qos, "memory": self.memory}
        for name, word in {**words, "constraint": self.constraint}.items():
            fits = word is None or re.fullmatch(r"[\w.,:&|()*\[\]+-]+", word) is not None
            require(f"{at}.{name}", word, fits, "a word as sbatch takes it")
        for line in self.setup:
            require(f"{at}.setup", line, line.isprintable(), "single lines")


@dataclass(frozen=True)
class RayConfig:
    """Tasks of a Ray cluster."""

    address: str | None = None
    """Address of a running cluster, such as auto or ray://head:10001; null: one is started on this machine."""
    workers: int | None = None
    """Workers at once; null: as many as the cluster has room for, at most one for each unit of work."""
    num_cpus: float = 1.0
    """CPU cores of a worker."""
    num_gpus: float = 0.0
    """GPUs of a worker; 0: where the cluster has GPUs, `train.devices`."""
    retries: int = 2
    """Times that a unit of work is tried again after a failure, counted from its last progress."""

    def check(self, at: str) -> None:
        """Raises ConfigError for numbers out of range."""
        check_workers(at, self.workers, self.retries)
        require(f"{at}.num_cpus", self.num_cpus, 0 < self.num_cpus <= MAX_WORKERS, "> 0")
        require(f"{at}.num_gpus", self.num_gpus, 0 <= self.num_gpus <= MAX_WORKERS, ">= 0")


def check_workers(at: str, workers: int | None, retries: int, name: str = "workers") -> None:
    """Raises ConfigError for numbers out of range."""
    require(f"{at}.{name}", workers, workers is None or 1 <= workers <= MAX_WORKERS, f"1 .. {MAX_WORKERS}")
    require(f"{at}.retries", retries, 0 <= retries <= 1000, "0 .. 1000")


def minutes(time: str) -> int:
    """Of `2d12h30m`; 0 for what is no such time."""
    found = _TIME.fullmatch(time)
    days, hours, rest = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return days * 1440 + hours * 60 + rest
