"""Batch scripts of SLURM as text: what `launcher.dry_run` prints, to be submitted with sbatch.

Before its limit, and when it is pre-empted, a job gets SIGUSR1: work is saved, the command ends with 75, and the job
puts itself into the queue again, under the same run, unless it has stopped too often with nothing saved
(`work.requeue`).
"""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

from lcprobe.errors import StoppedEarly
from lcprobe.studies.launchers.config import SlurmConfig, minutes
from lcprobe.studies.launchers.contract import RunTask, Task

REQUEUE = "lcprobe.studies.launchers.work.requeue"
"""The module that says whether there is a point in that."""
AGAIN = """\
code=$?
if [ $code -eq {stopped} ] && python -m {requeue} {study} "$SLURM_JOB_ID" {retries}; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def worker_script(config: SlurmConfig, task: Task, jobs: int) -> str:
    """An array of jobs, each with as many workers as its GPUs are for."""
    workers = max(1, config.gpus_per_job // task.devices)
    options = {"ntasks-per-node": str(workers), "array": f"0-{jobs - 1}%{config.at_once}"}
    if config.gpus_per_job:
        options["gpus-per-task"] = str(task.devices)
    command = ["python", *task.command[1:]]
    body = f"{_srun(config, together=False)} {shlex.join(command)}\n"
    return _script(config, task, task.folder.name, options, task.logs / "%A_%a.log", body)


def run_script(config: SlurmConfig, task: Task, run: RunTask) -> str:
    """The job of one run on several nodes, a process for each GPU."""
    nodes, per_node = node_shape(config, task.devices)
    options = {"nodes": str(nodes), "ntasks-per-node": str(per_node), "gpus-per-node": str(per_node)}
    body = f"{_srun(config, together=True)} {shlex.join(['python', *run.words])}\n"
    name = f"{task.folder.name}-{run.name}"
    return _script(config, task, name, options, task.logs / f"{run.name}-%j.log", body)


def node_shape(config: SlurmConfig, devices: int) -> tuple[int, int]:
    """Nodes of a run on so many GPUs, and GPUs of each of them."""
    nodes = -(-devices // config.gpus_per_node)
    return nodes, devices // nodes


def _srun(config: SlurmConfig, together: bool) -> str:
    """The command that starts a job's processes. together: whether all end where one fails; workers are independent,
    whatever the cluster's default.

    The cores of a process are said again: since SLURM 22.05 srun does not take them from the job.
    """
    return f"srun --cpus-per-task={config.cpus_per_worker} --kill-on-bad-exit={int(together)}"


def _script(config: SlurmConfig, task: Task, name: str, own: dict[str, str], log: PurePath, body: str) -> str:
    asked = {"partition": config.partition, "account": config.account, "qos": config.qos}
    asked |= {"constraint": config.constraint, "mem": config.memory}
    options = {"job-name": f"lcprobe-{name}", **{key: value for key, value in asked.items() if value is not None}}
    options |= {"nodes": "1", "time": str(minutes(config.time)), "cpus-per-task": str(config.cpus_per_worker)}
    options |= own | {"signal": f"USR1@{config.signal}", "open-mode": "append", "output": str(log)}
    lines: Sequence[str] = [f"#SBATCH --{key}={value}" for key, value in options.items()]
    study = shlex.quote(str(task.folder))
    again = AGAIN.format(stopped=StoppedEarly.exit_code, requeue=REQUEUE, study=study, retries=config.retries)
    return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", "", *config.setup, body.rstrip("\n"), again])
