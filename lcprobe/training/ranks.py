"""Several processes as one run: which of them writes files, and how values are shared. With one process all of it is
trivial.

Processes are started by torchrun (`torchrun --standalone --nproc-per-node 2 train.py ...`), which sets TORCHRUN in
the environment of each. Without WORLD_SIZE the others are somebody else's, and this is one process.
"""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed

from lcprobe.errors import ConfigError
from lcprobe.training.config import TrainConfig

T = TypeVar("T")
TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets, and that joining the other processes needs."""


def world_size() -> int:
    """Number of processes of this run. Raises ConfigError for a WORLD_SIZE that is no number of processes, and for
    variables of torchrun that are missing beside one above 1."""
    given = _variable("WORLD_SIZE")
    if not given:
        return 1
    size = _whole_number("WORLD_SIZE", given, 1, None)
    missing = [name for name in TORCHRUN if not _variable(name)] if size > 1 else []
    if missing:
        allowed = f"all of {', '.join(TORCHRUN)}, as torchrun sets them, or no WORLD_SIZE"
        raise ConfigError("environment", f"WORLD_SIZE={size} without {', '.join(missing)}", allowed)
    return size


def rank() -> int:
    """Number of this process among those of its run, from 0. Raises ConfigError for a RANK that is none of them, and
    as `world_size`."""
    size, given = world_size(), _variable("RANK")
    alone = not given or not _variable("WORLD_SIZE")
    return 0 if alone else _whole_number("RANK", given, 0, size - 1)


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def join_processes(config: TrainConfig) -> None:
    """Join the other processes. Raises ConfigError when their number is not train.devices, or there is no such
    device."""
    devices = config.devices
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("train.accelerator", "gpu", "auto | cpu here (no GPU is visible)")
    if devices != world_size():
        how = (
            f"{world_size()} (or start {devices} with: torchrun --standalone --nproc-per-node {devices} train.py ...)"
        )
        raise ConfigError("train.devices", devices, how)
    if devices > 1 and not distributed.is_initialized():
        gpu = config.accelerator == "gpu" or (config.accelerator == "auto" and torch.cuda.is_available())
        distributed.init_process_group("nccl" if gpu else "gloo")


def _variable(name: str) -> str:
    """A variable of the environment; one that is empty is as one that is not set."""
    return os.environ.get(name, "").strip()


def _whole_number(name: str, given: str, least: int, most: int | None) -> int:
    number = int(given) if given.isascii() and given.isdecimal() and len(given) <= 9 else -1
    allowed = f">= {least}" if most is None else f"{least} .. {most}"
    if number < least or (most is not None and number > most):
        raise ConfigError(name, given, f"{allowed}, as torchrun sets it in the environment")
    return number


def broadcast(value: T) -> T:
    """The main process's value in every process; waits for all of them."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def summed(values: Tensor) -> Tensor:
    """The sum of the values of all processes."""
    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gather_digests(parts: Sequence[Sequence[str]], device: torch.device) -> list[str]:
    """The digests of all rows of a step, in order, from those of each process. parts: of each of its parts, the
    digests of its rows; parts go to processes round-robin and have equally many rows."""
    if world_size() == 1:
        return [digest for part in parts for digest in part]
    own = torch.tensor([[list(bytes.fromhex(d)) for d in part] for part in parts], dtype=torch.uint8, device=device)
    each = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(each, own)
    turns = (each[rank][turn].tolist() for turn in range(len(parts)) for rank in range(world_size()))
    return [bytes(row).hex() for part in turns for row in part]
