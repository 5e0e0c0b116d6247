"""The processes that share contexts with this one: started here, each on a GPU of this machine, when there is first
something to read; or by torchrun or srun, from the start.

Where one ends, the work of the others is void: the first says so in one line, ends those that it has started, and
starts them again if there is more to do. What is finished is in the records. Where the first cannot see it, as it
waits for the others inside a library, or where one of them hangs, `watching` ends it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from lcprobe.errors import ConfigError, LcprobeError, PeerError, ending, listed, require
from lcprobe.models.config import KernelsConfig
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.split.leading import Orders, with_peers
from lcprobe.studies.evaluation.dividing.checks import KEY
from lcprobe.studies.evaluation.dividing.watching import FirstLooks, limit_of
from lcprobe.training.guards.heart import PASSING, Heart
from lcprobe.training.guards.peers import FailedElsewhere, Failure, Peers
from lcprobe.training.guards.signals import told_by_signals
from lcprobe.training.guards.watchdog import watched
from lcprobe.training.processes import Processes, processes

FOLLOWER = "lcprobe.studies.evaluation.dividing.follower"
ENDS = 0.5
"""Seconds in which processes that are about to end, end."""
STARTS = 600.0
"""Seconds in which a process starts, at most: it imports what it needs."""
LEAVES = "leaving the processes that share contexts"
POLL_SECONDS = 0.05
"""Between looks at processes that are about to come."""
FOREVER = timedelta(days=365)
"""For a first process that builds prompts or waits for others; one that ends or hangs is noticed by `watching`."""
KEPT = "what is finished is kept: the same command resumes"


class Sharing:
    """The processes that share contexts, as the first of them has them. here: how they were started; size 1: they are
    started here, `n` in all. minutes: probe.hang_minutes."""

    def __init__(self, here: Processes, n: int, kernels: KernelsConfig, minutes: float | None = None):
        self.kernels, self.heart = kernels, Heart()
        self.peers = Peers(self.heart)
        self._here, self._n, self._minutes, self._over = here, n, minutes, False
        self._children: list[subprocess.Popen[bytes]] = []
        self._joined: tuple[ContextRanks, Orders] | None = None

    def ready(self) -> tuple[ContextRanks, Orders]:
        """The ranks of a context, and the way to the other processes, started where they are not there. Raises
        PeerError where those that torchrun or srun has started have ended."""
        if self._joined is None:
            if self._over:
                raise PeerError("the processes that torchrun or srun has started have ended")
            here, store = (self._here, None) if self._here.size > 1 else self._start()
            with self.heart.during("waiting until the processes that share contexts have joined"):
                self._joined = join(here, self.heart, store)
            self.peers.meet()
            self.peers.beat()
        return self._joined

    def lost(self) -> LcprobeError | None:
        """The error for other processes that have ended, or cannot go on, which names the cause; None: all that were
        started here are there."""
        for rank, failure in self.peers.given_up().items():
            return FailedElsewhere(failure._replace(message=f"process {rank} of {self._n}: {failure.message}"))
        codes = {rank: child.poll() for rank, child in enumerate(self._children, start=1)}
        ended = {rank: code for rank, code in codes.items() if code is not None}
        causes = {rank: code for rank, code in ended.items() if code != PeerError.exit_code} or ended
        if not causes:
            return None
        who = ", ".join(f"process {rank} of {self._n} {ending(code)}" for rank, code in causes.items())
        for code in causes.values():
            if 0 < code < PeerError.exit_code:  # it has said why
                return FailedElsewhere(Failure(f"another process of {KEY}: {who}", code))
        return PeerError(f"another process of {KEY} is gone: {who}; {KEPT}")

    def broken(self) -> LcprobeError | None:
        """As `lost`. All that were started here are ended: whatever went wrong, they may be in the middle of
        something."""
        until = time.monotonic() + ENDS
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):  # it may be about to end
                child.wait(max(0.0, until - time.monotonic()))
        found = self.lost()
        self._leave()
        return found

    def end(self, clean: bool) -> None:
        """Let the others end. clean: whether they wait for what comes next, and are in the middle of nothing."""
        if self._joined is not None and clean:
            with suppress(PeerError), self.heart.during(LEAVES):
                self._joined[1].send(None)
            for child in self._children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10.0)
        self._leave()

    def kill(self) -> None:
        """End those that were started here."""
        for child in self._children:
            if child.poll() is None:
                child.kill()

    def _leave(self) -> None:
        self.kill()
        children, self._children = self._children, []
        for child in children:
            child.wait()
        if self._joined is not None and distributed.is_initialized():
            with self.heart.during(LEAVES):
                leave()
        self._joined, self._over = None, self._here.size > 1
        self.peers.meet()

    def _start(self) -> tuple[Processes, Any]:
        """Start the others: how all are started, and the store through which they meet."""
        store = open_store(0, self._n, first=True)
        world = {"WORLD_SIZE": self._n, "LOCAL_WORLD_SIZE": self._n, "MASTER_PORT": store.port}
        own = {**os.environ, **{name: str(value) for name, value in world.items()}, "MASTER_ADDR": "127.0.0.1"}
        if not torch.cuda.is_available():  # they share the cores
            threads = max(1, torch.get_num_threads() // self._n)
            own["OMP_NUM_THREADS"] = str(threads)
            torch.set_num_threads(threads)
        minutes = "null" if self._minutes is None else str(self._minutes)
        for rank in range(1, self._n):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", FOLLOWER, str(os.getpid()), minutes]
            # a group of its own: Ctrl-C reaches the first one alone, which speaks for all
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**own, **place}, process_group=0)
            self._children.append(child)
        self._await(store)
        return Processes(self._n, 0, 0, self._n, "127.0.0.1", store.port), store

    def _await(self, store: Any) -> None:
        """Wait until all that were started have come, as one that ends before would be waited for without end. Raises
        what `lost` says, and PeerError for one that does not come."""
        until = time.monotonic() + STARTS
        while not store.check([came(rank) for rank in range(1, self._n)]):
            late = time.monotonic() > until
            if late or any(child.poll() is not None for child in self._children):
                missing = [rank for rank in range(1, self._n) if not store.check([came(rank)])]
                who = f"process {listed(missing, ', ')} of {self._n}"
                slow = PeerError(f"{who} has not started within {STARTS / 60:.0f} minutes; {KEPT}")
                raise slow if late else self.broken() or slow
            time.sleep(POLL_SECONDS)


def came(rank: int) -> str:
    """What a process that was started sets in the store before it joins."""
    return f"process {rank} came"


_now: list[Sharing] = []
"""Of the command that runs, the one; empty where nothing is shared."""


@contextmanager
def sharing(probe: ProbeConfig, kernels: KernelsConfig, folder: Path) -> Iterator[int]:
    """In the block, models are shared by probe.context_parallel processes, with these kernels. Yields this one's
    rank: others than 0 are to follow the first. folder: for what the threads of this process do where one of the
    processes hangs, which ends it, as signals do where it waits for the others.

    Raises ConfigError where another number was started, and for more than this machine has GPUs.
    """
    n = probe.context_parallel
    if n == 1:
        yield 0
        return
    here = processes()
    if here.size not in (1, n):
        raise ConfigError(KEY, n, f"{here.size}, the processes that {here.starter} has started, or {n} of them")
    if torch.cuda.is_available():
        local, gpus = (here.local_size if here.size > 1 else n), torch.cuda.device_count()
        require(KEY, n, local <= gpus, f"a GPU for each of {local} processes on this machine, which sees {gpus}")
    if here.rank:
        yield here.rank
        return
    own, clean = Sharing(here, n, kernels, probe.hang_minutes), False
    stacks = folder / f"hang-{os.getpid()}.txt"
    _now.append(own)
    with told_by_signals() as told:
        looks = FirstLooks(own.heart, told, own.lost)
        with watched(own.heart, own.peers, limit_of(probe.hang_minutes), stacks, lambda _: own.kill(), looks):
            try:
                if here.size > 1:
                    own.ready()  # the others wait for it, even if there is nothing to read
                yield 0
                clean = True
            finally:
                _now.remove(own)
                own.end(clean)


def shared() -> Sharing:
    """The processes that share contexts. Only inside `sharing`."""
    assert _now, "inside `sharing` of more than one process"
    return _now[-1]


def open_store(port: int, n: int, first: bool) -> Any:
    """The store on this machine through which n processes meet. port: 0: any; first: whether this one keeps it."""
    return distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, n, is_master=first, timeout=FOREVER, wait_for_workers=False
    )


def join(here: Processes, heart: Heart, store: Any = None) -> tuple[ContextRanks, Orders]:
    """Join the others. heart: is told what this process does; store: through which they meet; None: as their starter
    says."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(here.local_rank)
    meet = None
    if store is None:
        meet = "env://" if here.starter == "torchrun" else f"tcp://{here.address}:{here.port}"
    backend = "nccl" if gpu else "gloo"
    distributed.init_process_group(backend, meet, timeout=FOREVER, rank=here.rank, world_size=here.size, store=store)
    group = distributed.group.WORLD
    assert group is not None
    host = distributed.new_group(backend="gloo", timeout=FOREVER) if gpu else group
    assert isinstance(host, distributed.ProcessGroup)

    @contextmanager
    def busy(number: int) -> Iterator[None]:
        with heart.during(PASSING, number):
            yield
            if gpu:  # else this process would wait for the others later on
                with_peers(torch.cuda.synchronize)

    return ContextRanks.of(group), Orders(host, busy)


def leave() -> None:
    """Leave the group of the others, who may be gone."""
    world = distributed.group.WORLD
    if world is not None and distributed.get_backend() == "nccl":
        world._get_backend(torch.device("cuda")).abort()  # waits for nobody
    distributed.destroy_process_group()
