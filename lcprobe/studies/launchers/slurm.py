"""Workers as jobs of SLURM, through submitit (pip install 'lcprobe[slurm]'): an array in which every job takes what
is free, or, where a run has more GPUs than a job, a job for each run.

What a job runs, and how it goes on when SLURM ends it, is in `slurm_jobs`.
"""

import logging
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcprobe.errors import ConfigError, Said, require
from lcprobe.locks import end_tree
from lcprobe.studies.launchers.config import SlurmConfig, minutes
from lcprobe.studies.launchers.contract import Launcher, Started, Task, last_line_of
from lcprobe.studies.launchers.sbatch import node_shape, run_script, worker_script
from lcprobe.studies.launchers.slurm_jobs import RankJob, WorkerJob

NOT_HERE = "launcher.dry_run=true, which prints the script, or launcher.executor=local, which tries the jobs here"
MOST_JOBS = 64
TIMES = 10_000
"""As often as submitit puts a job into the queue again."""
SCANCEL_SECONDS = 60
"""In which scancel answers."""
log = logging.getLogger(__name__)


class Slurm(Launcher[SlurmConfig]):
    """Jobs of SLURM."""

    Config = SlurmConfig

    @property
    def retries(self) -> int:
        """See Launcher."""
        return self.config.retries

    @property
    def waits(self) -> bool:
        """See Launcher."""
        return self.config.wait

    def check(self) -> None:
        """See Launcher."""
        if self.config.dry_run:
            return
        _submitit()
        missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if missing and self.config.executor != "local":
            raise ConfigError("launcher", Said(f"slurm, and no {' or '.join(missing)} here"), NOT_HERE)

    def of_runs(self, task: Task) -> bool:
        """A job for each run where one has more GPUs than a job of workers."""
        return task.devices > max(1, self.config.gpus_per_job)

    def places(self, task: Task) -> int:
        """Jobs: of the array, or one for each run."""
        if self.of_runs(task):
            nodes, per_node = node_shape(self.config, task.devices)
            whole = f"a multiple of {nodes} nodes, or launcher.gpus_per_node"
            require("train.devices", task.devices, nodes * per_node == task.devices, whole)
            return len(task.runs)
        workers = max(1, self.config.gpus_per_job // task.devices)
        return min(self.config.jobs or MOST_JOBS, -(-task.count // workers))

    def scripts(self, task: Task) -> dict[str, str] | None:
        """The scripts that sbatch takes, where nothing is to be submitted."""
        if not self.config.dry_run:
            return None
        if self.of_runs(task):
            return {run.name: run_script(self.config, task, run) for run in task.runs}
        return {"-".join(task.units): worker_script(self.config, task, self.places(task))}

    def start(self, task: Task, places: Sequence[int]) -> list[Started]:
        """See Launcher."""
        executor = self._executor(task)
        if self.of_runs(task):
            jobs = [RankJob(task.runs[place], task.folder, self.retries) for place in places]
        else:
            workers = max(1, self.config.gpus_per_job // task.devices)
            count = min(workers, task.count)
            jobs = [WorkerJob(tuple(task.command), count, task.devices, task.folder, self.retries) for _ in places]
        try:
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
        except _submitit().core.utils.FailedJobError as error:
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((line for line in reversed(said) if line.startswith("sbatch:")), said[-1] if said else "")
            allowed = f"launcher.partition, account, qos, time ... as this cluster has them, or {NOT_HERE}"
            raise ConfigError("launcher", Said(f"sbatch did not take the job ({reason})"), allowed) from None
        kind = LocalJobWorker if self.config.executor == "local" else SlurmWorker
        return [kind(job) for job in submitted]

    def _executor(self, task: Task) -> Any:
        self.check()
        submitit = _submitit()
        folder, config = task.logs / "slurm", self.config
        nodes, ranks = node_shape(config, task.devices) if self.of_runs(task) else (1, 1)
        gpus = ranks if self.of_runs(task) else config.gpus_per_job
        if config.executor == "local":
            executor = submitit.LocalExecutor(folder=folder, max_num_timeout=TIMES)
            tasks = nodes * ranks  # this machine is all nodes
            executor.update_parameters(timeout_min=minutes(config.time), tasks_per_node=tasks, gpus_per_node=0)
            return executor
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=TIMES)
        asked = {"partition": config.partition, "account": config.account, "qos": config.qos}
        asked |= {"constraint": config.constraint, "mem": config.memory, "gpus_per_node": gpus or None}
        executor.update_parameters(
            job_name=f"lcprobe-{task.folder.name}",
            time=minutes(config.time),
            nodes=nodes,
            ntasks_per_node=ranks,
            cpus_per_task=config.cpus_per_worker * (1 if self.of_runs(task) else max(1, gpus // task.devices)),
            array_parallelism=config.at_once,
            signal_delay_s=config.signal,
            setup=list(config.setup) or None,
            **{key: value for key, value in asked.items() if value is not None},
        )
        return executor


@dataclass(frozen=True)
class SlurmWorker:
    """A submitted job; see Started."""

    job: Any

    @property
    def name(self) -> str:
        """As SLURM calls it."""
        return f"job {self.job.job_id}"

    def exit_code(self) -> int | None:
        """See Started; 1 for a job that SLURM ended."""
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception:  # submitit's errors for jobs that were killed, lost or cancelled
            return 1

    def last_line(self) -> str:
        """See Started."""
        return last_line_of(Path(self.job.paths.stderr)) or str(self.job.state)

    def stop(self, now: bool) -> None:
        """Take it out of the queue, or tell it by SIGTERM, on which it saves and ends; now: SLURM ends it, by
        SIGKILL after its KillWait."""
        if now:
            _scancel(str(self.job.job_id))
            return
        _scancel("--state=PENDING", str(self.job.job_id))  # first: a job that begins in between is told
        _scancel("--signal=TERM", str(self.job.job_id))


@dataclass(frozen=True)
class LocalJobWorker(SlurmWorker):
    """A job of submitit's local executor."""

    def stop(self, now: bool) -> None:
        """Tell the process that controls it by SIGTERM, which it hands on; now: end it and all that it started."""
        process = self.job._process
        if process.poll() is not None:
            return
        if now:
            end_tree(process.pid)
        else:
            process.send_signal(signal.SIGTERM)


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        allowed = "local | ray, or pip install 'lcprobe[slurm]', or launcher.dry_run=true, which prints the script"
        raise ConfigError("launcher", "slurm without submitit", allowed) from None
    return submitit


def _scancel(*words: str) -> None:
    """Ask SLURM; where it does not answer, the job goes on and a line says so."""
    try:
        done = subprocess.run(["scancel", *words], capture_output=True, text=True, timeout=SCANCEL_SECONDS)
        problem = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        log.warning("scancel %s: %s", " ".join(words), problem)
