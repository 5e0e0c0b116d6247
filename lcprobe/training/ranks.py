"""Several processes as one run: how they divide the work, which of them writes files, and how values are shared. With
one process all of it is trivial.

    data       processes with different parts of a step's batch
    context    processes with different pieces of the same sequences
    tensor     processes with different shares of the same matrices; neighbours, on one machine

A process is at one coordinate of each. Processes that differ in data or context have the same parameters (or, with
fsdp2, divide them): gradients are averaged over these `replicas`. How processes are started: `processes`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from lcprobe.errors import ConfigError, LcprobeError, exit_code_of
from lcprobe.training.config import TrainConfig
from lcprobe.training.processes import known_to_all, processes

T = TypeVar("T")
HANGS = 4
"""Collectives give up after so many times train.hang_minutes: others may wait for a checkpoint or a probe."""


@dataclass(frozen=True)
class Layout:
    """How the processes of a run divide the work: the number along each dimension, and this process's coordinate.

    mesh: dimensions data, context, tensor; wide: dimensions replicas (data x context) and tensor; both None with one
    process.
    """

    data: int = 1
    context: int = 1
    tensor: int = 1
    data_rank: int = 0
    context_rank: int = 0
    tensor_rank: int = 0
    mesh: DeviceMesh | None = None
    wide: DeviceMesh | None = None

    @property
    def replicas(self) -> int:
        """Number of processes whose gradients are averaged."""
        return self.data * self.context

    @property
    def replica_rank(self) -> int:
        """Coordinate among the replicas."""
        return self.data_rank * self.context + self.context_rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.replicas * self.tensor

    def group(self, dimension: str) -> distributed.ProcessGroup:
        """The process group of this process along data, context, tensor or replicas. For several processes only."""
        mesh = self.wide if dimension == "replicas" else self.mesh
        assert mesh is not None, "one process has no groups"
        return mesh.get_group(dimension)

    def size(self, dimension: str) -> int:
        """Number of processes along a dimension."""
        return {"data": self.data, "context": self.context, "tensor": self.tensor, "replicas": self.replicas}[
            dimension
        ]


_joined = [Layout()]
"""The layout of the run that this process trains."""
_timeout = [timedelta(minutes=30)]
"""After which collectives give up."""


def layout() -> Layout:
    """How the processes divide the work, since they joined."""
    return _joined[0]


def world_size() -> int:
    """Number of processes of this run. Raises ConfigError as `processes` does."""
    return processes().size


def rank() -> int:
    """Number of this process among those of its run, from 0. Raises ConfigError as `processes` does."""
    return processes().rank


def is_main() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def join_processes(config: TrainConfig) -> Layout:
    """Join the other processes. Raises ConfigError when their number is not train.devices, or there is no such
    device."""
    devices, here = config.devices, processes()
    gpu = config.accelerator == "gpu" or (config.accelerator == "auto" and torch.cuda.is_available())
    if gpu and not torch.cuda.is_available():
        raise ConfigError("train.accelerator", "gpu", "auto | cpu here (no GPU is visible)")
    if devices != here.size:
        how = f"{here.size} (or start {devices} with: torchrun --standalone --nproc-per-node {devices} train.py ...)"
        if here.starter == "srun":
            how = f"{here.size}, the processes that srun started (or srun --ntasks {devices})"
        raise ConfigError("train.devices", devices, how)
    if gpu and here.local_size > torch.cuda.device_count():
        given = f"{here.local_size} processes on this machine, which sees {torch.cuda.device_count()} GPUs"
        raise ConfigError("train.devices", given, "a GPU for each, all visible to every process (--gpus-per-node)")
    if devices == 1:
        _joined[0] = Layout()
        return _joined[0]
    if not distributed.is_initialized():
        _meshes.cache_clear()
        host_group.cache_clear()
        if gpu:
            torch.cuda.set_device(here.local_rank)
        meet = f"tcp://{here.address}:{here.port}"
        if here.starter == "torchrun":
            meet = "env://"  # its agent serves at that address
        seconds = HANGS * config.hang_seconds
        _timeout[0] = timedelta(seconds=seconds) if seconds else timedelta(days=30)
        backend = "nccl" if gpu else "gloo"
        distributed.init_process_group(backend, meet, timeout=_timeout[0], rank=here.rank, world_size=here.size)
    context, tensor = config.context_parallel, config.tensor_parallel
    data = devices // (context * tensor)
    mesh, wide = _meshes("cuda" if gpu else "cpu", data, context, tensor)
    replica, tensor_rank = divmod(here.rank, tensor)
    data_rank, context_rank = divmod(replica, context)
    _joined[0] = Layout(data, context, tensor, data_rank, context_rank, tensor_rank, mesh, wide)
    return _joined[0]


@functools.cache
def _meshes(device: str, data: int, context: int, tensor: int) -> tuple[DeviceMesh, DeviceMesh]:
    """Meshes (data, context, tensor) and (replicas, tensor) over all processes, made once by all of them."""
    mesh = init_device_mesh(device, (data, context, tensor), mesh_dim_names=("data", "context", "tensor"))
    wide = init_device_mesh(device, (data * context, tensor), mesh_dim_names=("replicas", "tensor"))
    for group in (*mesh.get_all_groups(), *wide.get_all_groups()):
        distributed_c10d._set_pg_timeout(_timeout[0], group)  # torch has its own default for them
    return mesh, wide


@functools.cache
def host_group() -> distributed.ProcessGroup:
    """A group of all processes on the host, whatever the devices are, made once by all of them."""
    group = distributed.new_group(backend="gloo", timeout=_timeout[0])
    assert isinstance(group, distributed.ProcessGroup)
    return group


def broadcast(value: T) -> T:
    """The main process's value in every process; waits for all of them."""
    if world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


@dataclass(frozen=True)
class Attempt(Generic[T]):
    """What a process made, or why the disk did not let it."""

    made: T | None
    failure: str = ""

    def value(self) -> T:
        """What was made. Raises OSError for a failure."""
        if self.failure:
            raise OSError(self.failure)
        return self.made  # type: ignore[return-value]


def attempted(make: Callable[[], T]) -> Attempt[T]:
    """Make something on the disk, such that a failure can be told to the other processes."""
    try:
        return Attempt(make())
    except (OSError, SafetensorError) as error:  # safetensors has its own for a full disk
        return Attempt(None, " ".join(f"{error}".split()) or type(error).__name__)


def same_for_all(make: Callable[[], T]) -> T:
    """What the main process makes, in every process. Raises OSError in all of them where the disk does not let it."""
    return broadcast(attempted(make) if is_main() else Attempt(None)).value()


class ErrorOfMain(LcprobeError):
    """An error of the main process, which that says; see `decided_by_main`."""

    def __init__(self, message: str, code: int):
        self.exit_code = code
        super().__init__(message)


def decided_by_main(decide: Callable[[], T]) -> T:
    """What the main process decides, in every process, which wait for it. Where it raises an error that a user can
    act on, or of the disk, the others raise ErrorOfMain."""
    decided: T | None = None
    error: Exception | None = None
    if is_main():
        try:
            decided = decide()
        except (LcprobeError, OSError) as failure:
            error = failure
    told, code, value = broadcast(("" if error is None else str(error), exit_code_of(error) if error else 0, decided))
    if error is not None:
        raise error
    if code:
        with known_to_all(ErrorOfMain):
            raise ErrorOfMain(told, code)
    return value  # type: ignore[return-value]


def gathered(value: T) -> list[T]:
    """The values of all processes, by rank, in the main one; nothing in the others."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if is_main() else None
    distributed.gather_object(value, values, dst=0)
    return values or []


def summed(values: Tensor, over: str = "replicas") -> Tensor:
    """The sum of the values of the processes along a dimension of the layout."""
    now = layout()
    if now.size(over) > 1:
        values = values.clone()
        distributed.all_reduce(values, group=now.group(over))
    return values


def gather_digests(parts: Sequence[Sequence[str]], device: torch.device) -> list[str]:
    """The digests of all rows of a step, in order, from those of each process. parts: of each of its parts, the
    digests of its rows; parts go to processes round-robin and have equally many rows."""
    now = layout()
    if now.data == 1:
        return [digest for part in parts for digest in part]
    own = torch.tensor([[list(bytes.fromhex(d)) for d in part] for part in parts], dtype=torch.uint8, device=device)
    each = [torch.empty_like(own) for _ in range(now.data)]
    distributed.all_gather(each, own, group=now.group("data"))
    turns = (each[rank][turn].tolist() for turn in range(len(parts)) for rank in range(now.data))
    return [bytes(row).hex() for part in turns for row in part]
