"""Functions run in several processes at once, which are the ranks of one sequence, over gloo."""

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import distributed

from lcprobe.models.ranks.context import ContextRanks

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["validation.context_parallel.compare"])


def in_ranks(size: int, work: Callable[..., Any], *args: Any, seconds: float = 600.0) -> Any:
    """What rank 0 returns of work(ranks, *args), which `size` processes call. work: a module's function. Raises
    RuntimeError where a process fails, or is not done within so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
        processes = [
            CONTEXT.Process(target=_process, args=(rank, size, f"{folder}/store", pipe[1], work, args), daemon=True)
            for rank, pipe in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        try:
            found = [pipe.recv() if pipe.poll(seconds) else (False, "not done in time") for pipe, _ in pipes]
        finally:
            for process in processes:
                process.join(5.0)
                if process.is_alive():
                    process.kill()
    failed = [f"rank {rank}: {value}" for rank, (done, value) in enumerate(found) if not done]
    if failed:
        raise RuntimeError("\n".join(failed))
    return found[0][1]


def _process(
    rank: int, size: int, store: str, pipe: Connection, work: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    file = distributed.FileStore(store, size)  # type: ignore[attr-defined]
    distributed.init_process_group("gloo", store=file, rank=rank, world_size=size)
    group = distributed.group.WORLD
    assert group is not None
    try:
        value = work(ContextRanks.of(group), *args)
        pipe.send((True, value if rank == 0 else None))
        distributed.barrier()
    except Exception:  # whatever it was: the parent says it
        pipe.send((False, traceback.format_exc()))
    finally:
        distributed.destroy_process_group()
