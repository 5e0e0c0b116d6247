"""The loader of a run: batches made in this process, or ahead of the training step by processes of their own.

A batch is a function of (seed, step, part), so that who makes it, and how far ahead, changes nothing: there is no
position to save, and a resumed run begins with its first step that is not trained yet.

Worker processes are forked. What they read is there already and is shared: mapped token shards, and texts and pools
of words and numbers that were tokenised before (`Mixture.warm`), which another start method would read and tokenise
once a worker. They use no GPU, one thread, and no parallelism of the tokenizer.
"""

import multiprocessing
import os
import re
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from lcprobe.data.mixture import Mixture
from lcprobe.errors import DataError, LoaderError, shorten
from lcprobe.training.config import TrainConfig
from lcprobe.training.guards.heart import STEPPING, WAITING, Heart
from lcprobe.training.initial_state import InitialState
from lcprobe.training.loading.step_batches import StepBatches, micro_batches
from lcprobe.training.loading.workers import cores_here, workers_of
from lcprobe.training.micro_batch import MicroBatch
from lcprobe.training.processes import processes
from lcprobe.training.ranks import layout

WORKER_DIED = re.compile(r"DataLoader worker \(pid\(?s?\)? [0-9, ]+\) (.*)", re.DOTALL)
"""What torch says of a worker process that is gone."""
SHARE_OF_HANG = 0.8
"""Of train.hang_minutes: how long worker processes are waited for, which the watchdog leaves to this error."""
WORKER_HANGS = re.compile(r"DataLoader timed out after ([0-9.]+) seconds")
"""And of those that make nothing."""
NO_PARALLELISM = {"TOKENIZERS_PARALLELISM": "false"}


class MixtureData(pl.LightningDataModule):
    """A mixture's micro-batches from a given step, for any number of processes. initial: says what a batch includes
    besides its rows; heart: is told what the loader does."""

    def __init__(
        self,
        config: TrainConfig,
        mixture: Mixture,
        first_step: int,
        initial: InitialState | None = None,
        heart: Heart | None = None,
    ):
        super().__init__()
        self._config, self._mixture, self._first, self._initial = config, mixture, first_step, initial
        self._heart = heart or Heart()
        self._batches: MicroBatches | None = None

    def train_dataloader(self) -> "MicroBatches":
        """One item per micro-batch, in order."""
        assert self.trainer is not None
        gpu, cores = self.trainer.strategy.root_device.type == "cuda", cores_here() // processes().local_size
        workers = workers_of(self._config, gpu=gpu, kept=self._mixture.keeps, cores=cores)
        earlier, measures = (
            (0, False) if self._initial is None else (self._initial.earlier, self._initial.measures_batch)
        )
        now = layout()
        chunk = (now.context_rank, now.context)
        steps = StepBatches(self._mixture, self._first, now.data_rank, now.data, earlier, measures, chunk)
        if workers:
            self._mixture.warm()
        seconds = SHARE_OF_HANG * self._config.hang_seconds
        self._batches = MicroBatches(steps, workers, self._config.prefetch, gpu, seconds, self._heart)
        return self._batches

    def close(self) -> None:
        """End the worker processes."""
        if self._batches is not None:
            self._batches.close()


class MicroBatches:
    """The micro-batches of all steps, in order. workers: processes that make them; prefetch: steps that each makes
    ahead; pinned: whether they are put where a GPU can fetch them itself; seconds: that one may take, 0 for any
    number; heart: is told about waiting for one."""

    def __init__(
        self,
        steps: StepBatches,
        workers: int = 0,
        prefetch: int = 2,
        pinned: bool = False,
        seconds: float = 0,
        heart: Heart | None = None,
    ):
        self._steps, self._iterator, self._heart = steps, None, heart or Heart()
        ahead: dict[str, Any] = {}
        if workers:
            fork = multiprocessing.get_context("fork")
            ahead = {"multiprocessing_context": fork, "prefetch_factor": prefetch, "worker_init_fn": _begin_worker}
            ahead["timeout"] = seconds
        self._loader = DataLoader(
            steps,
            batch_size=None,
            shuffle=False,
            num_workers=workers,
            pin_memory=pinned,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # torch draws a seed for workers: not from the run's generator
            **ahead,
        )

    def __len__(self) -> int:
        return len(self._steps) * self._steps.parts_of_step

    def __iter__(self) -> Iterator[MicroBatch]:
        self.close()
        with _environment(NO_PARALLELISM if self._loader.num_workers else {}):
            self._iterator = iter(self._loader)
        return self._micro_batches(self._iterator)

    def _micro_batches(self, steps: _BaseDataLoaderIter) -> Iterator[MicroBatch]:
        number = self._steps.first
        self._heart.mark(WAITING, number)
        try:
            for step in steps:
                if isinstance(step, str):
                    raise DataError(step)
                for batch in micro_batches(step):
                    self._heart.mark(STEPPING, number)
                    yield batch
                number += 1
                self._heart.mark(WAITING, number)
        finally:  # what follows is not training: the last checkpoint, or ending the workers
            self._heart.mark("", number)

    def close(self) -> None:
        """End the worker processes."""
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raises LoaderError for the errors by which torch says, wherever the training process is, that a worker process
    is gone or makes nothing."""
    try:
        yield
    except RuntimeError as error:
        if (hangs := WORKER_HANGS.search(str(error))) is not None:
            raise LoaderError(
                f"no batch for {hangs[1]} seconds from the processes that make them: does the disk of data.folder"
                " answer? (train.hang_minutes is the limit); the same command resumes from the last checkpoint"
            ) from error
        died = WORKER_DIED.search(str(error))
        if died is None:
            raise
        raise _gone(" ".join(died[1].split())) from error
    except (ConnectionError, EOFError) as error:  # it died while it was handing a batch over
        if not any(_is_torchs_loader(frame) for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise
        raise _gone(str(error) or "its connection ended") from error


def _is_torchs_loader(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").startswith("torch.utils.data")


def _gone(how: str) -> LoaderError:
    return LoaderError(
        f"a process that makes batches is gone ({shorten(how, 200)}): out of memory, or of /dev/shm?"
        " train.workers=0 needs neither; the same command resumes from the last checkpoint"
    )


def _as_it_is(step: Any) -> Any:
    return step


def _begin_worker(number: int) -> None:
    """Signals are for the training process, which saves first and then ends its workers. torch ends a worker that
    does not answer by SIGTERM, which is the second one where the scheduler sent one to all."""
    for ignored in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, lambda *_: os._exit(0)))


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables that are set in the block, and in processes that begin in it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
