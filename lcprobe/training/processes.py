"""How the processes of a run were started, by their environment: alone, by torchrun, or by SLURM's srun.

torchrun    WORLD_SIZE and the other variables of TORCHRUN; it comes first, also inside a job of SLURM
srun        SLURM_STEP_NUM_TASKS, which only processes that srun started have: those of an allocation alone
            (SLURM_NTASKS and the like) do not say how a process was started

Without either, or with WORLD_SIZE=1, a process is alone.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lcprobe.errors import ConfigError, leave_to_another

TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets, and that joining the other processes needs."""
SRUN = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
"""Variables that srun sets, and that joining the other processes needs."""
FIRST_PORT, PORTS = 15_000, 10_000
"""Ports on which the processes of a job of SLURM meet, by the number of the job, as in Lightning and others."""


@dataclass(frozen=True)
class Processes:
    """This process among those of its run. rank: 0 .. size - 1; local_rank: among the local_size processes of its
    machine; address, port: where they meet; starter: who started them."""

    size: int = 1
    rank: int = 0
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    starter: str = "torchrun"

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.size // self.local_size


def processes() -> Processes:
    """The processes of this run. Raises ConfigError for variables that are no numbers or out of range, and for
    missing ones."""
    if _variable("WORLD_SIZE"):
        return _by_torchrun()
    if _variable("SLURM_STEP_NUM_TASKS"):
        return _by_srun()
    return Processes()


@contextmanager
def known_to_all(*kinds: type[BaseException]) -> Iterator[None]:
    """Errors of these kinds in the block are ones that all processes of the run have, as they have told each other:
    the first says them. An error that one process may have alone, such as a file that its machine lacks, is none of
    them, nor is one before they have joined: what one of them ends with ends the others, said or not."""
    try:
        yield
    except kinds as error:
        if processes().rank > 0:
            leave_to_another(error)
        raise


def _by_torchrun() -> Processes:
    size = _whole_number("WORLD_SIZE", 1, None, "torchrun")
    if size == 1:
        if _variable("RANK"):
            _whole_number("RANK", 0, 0, "torchrun")
        return Processes()
    _require_all(TORCHRUN, "WORLD_SIZE", "torchrun")
    rank = _whole_number("RANK", 0, size - 1, "torchrun")
    local_size = size
    if _variable("LOCAL_WORLD_SIZE"):
        local_size = _whole_number("LOCAL_WORLD_SIZE", 1, size, "torchrun")
    local_rank = _whole_number("LOCAL_RANK", 0, local_size - 1, "torchrun")
    _check_even("LOCAL_WORLD_SIZE", size, local_size)
    port = _whole_number("MASTER_PORT", 1, 65_535, "torchrun")
    return Processes(size, rank, local_rank, local_size, _variable("MASTER_ADDR"), port)


def _by_srun() -> Processes:
    size = _whole_number("SLURM_STEP_NUM_TASKS", 1, None, "srun")
    if size == 1:
        return Processes()
    _require_all(SRUN, "SLURM_STEP_NUM_TASKS", "srun")
    rank = _whole_number("SLURM_PROCID", 0, size - 1, "srun")
    local_size = _tasks_per_node(size)
    local_rank = _whole_number("SLURM_LOCALID", 0, local_size - 1, "srun")
    port = FIRST_PORT + _whole_number("SLURM_JOB_ID", 0, None, "srun") % PORTS
    if _variable("MASTER_PORT"):
        port = _whole_number("MASTER_PORT", 1, 65_535, "torchrun")
    address = _variable("MASTER_ADDR") or first_host(_variable("SLURM_STEP_NODELIST"))
    return Processes(size, rank, local_rank, local_size, address, port, "srun")


def first_host(nodes: str) -> str:
    """The first machine of a list as SLURM writes it, such as `gpu[07-09,12],cpu1` or `a-[1,3]-ib`.

    Raises ConfigError for what is no such list.
    """
    found = re.match(r"([^\[\],\s]*)(?:\[(\w+)[^\]]*\]([^\[\],\s]*))?", nodes)
    host = "".join(part or "" for part in found.groups()) if found else ""
    if not host:
        raise ConfigError("SLURM_STEP_NODELIST", nodes, "a list of machines, such as node[01-04], as srun sets it")
    return host


def _tasks_per_node(size: int) -> int:
    """Processes on each machine, from SLURM_STEP_TASKS_PER_NODE such as `8(x2)`. Raises ConfigError where machines
    have unequal numbers of them."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    given = _variable(name)
    if not given:
        return size
    found = re.fullmatch(r"([0-9]{1,6})(\(x[0-9]{1,6}\))?", given)
    if not found or int(found.group(1)) < 1:
        raise ConfigError(name, given, "the same number of tasks on every machine (srun --ntasks-per-node)")
    _check_even(name, size, int(found.group(1)))
    return int(found.group(1))


def _check_even(name: str, size: int, local_size: int) -> None:
    if size % local_size:
        raise ConfigError(name, local_size, f"a divisor of the number of processes ({size})")


def _require_all(names: tuple[str, ...], first: str, starter: str) -> None:
    missing = [name for name in names if not _variable(name)]
    if missing:
        allowed = f"all of {', '.join(names)}, as {starter} sets them, or no {first}"
        raise ConfigError("environment", f"{first}={_variable(first)} without {', '.join(missing)}", allowed)


def _variable(name: str) -> str:
    """A variable of the environment; one that is empty is as one that is not set."""
    return os.environ.get(name, "").strip()


def _whole_number(name: str, least: int, most: int | None, starter: str) -> int:
    given = _variable(name)
    number = int(given) if given.isascii() and given.isdecimal() and len(given) <= 9 else -1
    allowed = f">= {least}" if most is None else f"{least} .. {most}"
    if number < least or (most is not None and number > most):
        raise ConfigError(name, given, f"{allowed}, as {starter} sets it in the environment")
    return number
