"""Several processes of one run, forked from this one, which has imported everything: a process starts in
milliseconds."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("fork")
SECONDS = 300
"""After which processes that have not ended are taken as hanging, unless a caller says otherwise."""


def run_forked(n: int, target: Callable[..., Any], *args: Any, nodes: int = 1, seconds: float = SECONDS) -> Any:
    """Call target(*args) in n processes, with the environment of torchrun, and return what the first returns. nodes:
    as which their environment shows them. seconds: after which they are taken as hanging.

    Raises RuntimeError with the traceback of the first that fails, after ending the others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver, sender = CONTEXT.Pipe(duplex=False)
    processes = [
        CONTEXT.Process(target=_child, args=(n, n // nodes, rank, port, sender, target, args)) for rank in range(n)
    ]
    for process in processes:
        process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise RuntimeError(f"{n} processes: no answer in {seconds} s")
        error, value = receiver.recv()
        if error:
            raise RuntimeError(error)
        for process in processes:
            process.join(SECONDS)
        codes = [process.exitcode for process in processes]
        if any(codes):
            raise RuntimeError(f"exit codes {codes}")
        return value
    finally:
        for process in processes:
            process.kill()
            process.join()


def _child(
    n: int, local: int, rank: int, port: int, sender: Any, target: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]
    here = {"WORLD_SIZE": n, "RANK": rank, "LOCAL_RANK": rank % local, "LOCAL_WORLD_SIZE": local, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in here.items()} | {"MASTER_ADDR": "127.0.0.1"}
    torch.set_num_threads(1)
    try:
        value = target(*args)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except BaseException:  # whatever it was: the parent says it
        sender.send((traceback.format_exc(), None))
        os._exit(1)
    if rank == 0:
        sender.send((None, value))
    sender.close()
    os._exit(0)
