"""Signals, kills, hangs, memory and time; several processes of one run."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

import torch

from lcprobe.training import checkpoint, saving
from lcprobe.training.guards.deadline import hours_since_start
from lcprobe.training.loading.step_batches import StepBatches
from lcprobe.training.module import Training
from validation.faults.harness import Fault, Place, at_step, kill_self

HANG = "train.hang_minutes=0.15"
TWO = ("train.devices=2",)
WORKER = ("train.workers=1", "train.prefetch=1")
HOURS = 20 / 3600


def _signal(number: int, times: int = 1) -> Callable[[Training], None]:
    def send(module: Training) -> None:
        for _ in range(times):
            os.kill(os.getpid(), number)

    return send


def _in_save(do: Callable[[], None]) -> None:
    """Do something when the files of the second checkpoint are written and it is not renamed yet."""
    plain, saves = checkpoint.publish_folder, []

    def publish(*args: Any, **kwargs: Any) -> None:
        saves.append(1)
        if len(saves) == 2:
            do()
        plain(*args, **kwargs)

    checkpoint.publish_folder = publish


def _sleep(module: Training) -> None:
    time.sleep(600)


def _kill_workers(module: Training) -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _stuck_loader(place: Place) -> None:
    plain = StepBatches.step_batch

    def batch(self: StepBatches, step: int) -> Any:
        if step == 6:
            time.sleep(600)
        return plain(self, step)

    StepBatches.step_batch = batch  # type: ignore[method-assign]


def _no_memory(module: Training) -> None:
    torch.empty(1 << 50)


def _slow_to_the_limit(module: Training) -> None:
    while hours_since_start() < HOURS:
        time.sleep(0.05)


def _full_disk(module: Training) -> None:
    """No file may grow beyond 20 kB until step 9: the checkpoint of step 8 does not fit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def _free_disk(module: Training) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _term(place: Place) -> None:
    at_step(6, _signal(signal.SIGTERM))


def _ctrl_c(place: Place) -> None:
    at_step(6, _signal(signal.SIGINT))


def _term_in_save(place: Place) -> None:
    _in_save(lambda: os.kill(os.getpid(), signal.SIGTERM))


def _two_signals(place: Place) -> None:
    at_step(6, _signal(signal.SIGTERM, 2))


def _kill(place: Place) -> None:
    at_step(6, kill_self)


def _kill_in_save(place: Place) -> None:
    _in_save(lambda: os.kill(os.getpid(), signal.SIGKILL))


def _hang(place: Place) -> None:
    at_step(6, _sleep)


def _workers_die(place: Place) -> None:
    at_step(6, _kill_workers)


def _memory(place: Place) -> None:
    at_step(6, _no_memory)


def _time(place: Place) -> None:
    at_step(6, _slow_to_the_limit)


def _disk_full(place: Place) -> None:
    at_step(7, _full_disk)
    at_step(9, _free_disk)


def _disk_stays_full(place: Place) -> None:
    at_step(5, _full_disk)


def _told_on_a_full_disk(place: Place) -> None:
    at_step(5, _full_disk)
    _term(place)


def _rank_1_dies(place: Place) -> None:
    at_step(6, kill_self, rank=1)


def _rank_1_has_no_memory(place: Place) -> None:
    at_step(6, _no_memory, rank=1)


def _defect(module: Training) -> None:
    raise ValueError("a defect")


def _rank_1_has_a_defect(place: Place) -> None:
    at_step(6, _defect, rank=1)


def _no_memory_where_nothing_else_fails(place: Place) -> None:
    """As on a GPU, where what waits for another process does not notice that it is gone: rank 0 sleeps."""
    at_step(6, _no_memory, rank=1)
    at_step(6, _sleep, rank=0)


def _rank_1_hangs(place: Place) -> None:
    at_step(6, _sleep, rank=1)


def _rank_1_waits(place: Place) -> None:
    if os.environ["RANK"] == "1":
        _stuck_loader(place)


def _rank_1_is_told(place: Place) -> None:
    at_step(6, _signal(signal.SIGTERM), rank=1)


def _no_room(place: Place) -> None:
    """Ten bytes are free when a checkpoint is to be saved."""
    from lcprobe.training.guards import disk

    assert saving.require_room_to_save is disk.require_room_to_save
    disk.free_bytes = lambda folder: 10


RESUMES = "the same command resumes"
FAULTS = (
    Fault("SIGTERM in a step", "SIGTERM in step 6", 75, "stopped by SIGTERM at step 7 of 12, saved", inject=_term),
    Fault(
        "Ctrl-C in a step", "SIGINT in step 6", 130, f"interrupted: finished work is kept; {RESUMES}", inject=_ctrl_c
    ),
    Fault(
        "SIGTERM in a save",
        "SIGTERM while the checkpoint of step 8 is written",
        75,
        "stopped by SIGTERM at step",
        inject=_term_in_save,
    ),
    Fault(
        "a second signal",
        "SIGTERM twice in step 6",
        75,
        f"stopped by SIGTERM: finished work is kept; {RESUMES}",
        inject=_two_signals,
    ),
    Fault("SIGKILL in a step", "SIGKILL in step 6", -9, "", inject=_kill),
    Fault(
        "SIGKILL in a save", "SIGKILL when the files of step 8 are written, not renamed", -9, "", inject=_kill_in_save
    ),
    Fault(
        "time is up",
        "train.max_hours is over in step 6",
        75,
        "stopped by train.max_hours at step",
        inject=_time,
        arguments=[f"train.max_hours={HOURS:.6f}"],
    ),
    Fault(
        "a step hangs",
        f"step 6 sleeps, {HANG}",
        75,
        "(computing, or waiting for another process)",
        inject=_hang,
        arguments=[HANG],
    ),
    Fault(
        "batches do not come",
        f"the loader sleeps at step 6, {HANG}",
        75,
        "(data loading)",
        inject=_stuck_loader,
        arguments=[HANG],
    ),
    Fault(
        "a data worker hangs",
        f"the same in a worker, {HANG}",
        75,
        "seconds from the processes that make them",
        inject=_stuck_loader,
        arguments=[HANG, *WORKER],
    ),
    Fault(
        "a data worker dies",
        "SIGKILL to a worker in step 6",
        75,
        "a process that makes batches is gone",
        inject=_workers_die,
        arguments=WORKER,
    ),
    Fault("out of memory", "step 6 asks for 2**52 bytes", 2, "out of memory (", inject=_memory),
    Fault(
        "one of two processes dies",
        "SIGKILL to rank 1 in step 6",
        75,
        "another process of the run does not answer: rank 1",
        inject=_rank_1_dies,
        arguments=TWO,
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "out of memory in one of two processes",
        "step 6 of rank 1 asks for 2**52 bytes",
        2,
        "rank 1: one: out of memory (",
        inject=_rank_1_has_no_memory,
        arguments=TWO,
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "a defect in one of two processes",
        "step 6 of rank 1 raises ValueError",
        1,
        "rank 1: ValueError: a defect",
        inject=_rank_1_has_a_defect,
        arguments=TWO,
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "out of memory in one of two, which the other does not notice",
        "the same, and rank 0 sleeps in step 6",
        2,
        "rank 1: one: out of memory (",
        inject=_no_memory_where_nothing_else_fails,
        arguments=TWO,
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "one of two processes hangs",
        f"rank 1 sleeps in step 6, {HANG}",
        75,
        "in a training step for",
        inject=_rank_1_hangs,
        arguments=[*TWO, HANG],
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "one of two processes waits for data",
        f"the loader of rank 1 sleeps at step 6, {HANG}",
        75,
        "rank 1 gave no sign of life (last seen at step 6, waiting for a batch)",
        inject=_rank_1_waits,
        arguments=[*TWO, HANG],
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "SIGTERM to one of two processes",
        "SIGTERM to rank 1 in step 6",
        75,
        "stopped by SIGTERM at step 8 of 12, saved",
        inject=_rank_1_is_told,
        arguments=TWO,
        ranks=2,
        after=["train.accumulate=2"],
    ),
    Fault(
        "disk full in a save",
        "no file may exceed 20 kB from step 7 to 9",
        0,
        "1 of 3 failures in a row",
        inject=_disk_full,
    ),
    Fault(
        "disk stays full",
        "no file may exceed 20 kB from step 5 on",
        74,
        "error: input/output: ",
        inject=_disk_stays_full,
        arguments=["train.checkpoint_every=256"],
        after=["train.checkpoint_every=256"],
    ),
    Fault(
        "SIGTERM on a full disk",
        "no file may exceed 20 kB from step 5 on, and SIGTERM in step 6",
        74,
        "stopped by SIGTERM at step 7 of 12, and not saved (",
        inject=_told_on_a_full_disk,
    ),
    Fault(
        "no room at the start",
        "the system is made to say that 10 bytes are free",
        74,
        "free on the disk; allowed: >= ",
        inject=_no_room,
    ),
)
