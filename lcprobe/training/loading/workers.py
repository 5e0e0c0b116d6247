"""How many processes make a run's batches. Imports no torch: `--plan` asks."""

import multiprocessing
import os
import sys

from lcprobe.errors import ConfigError
from lcprobe.training.config import TrainConfig

WORKERS_OF_A_GPU = 2
"""Worker processes of a GPU where the config does not say: one keeps up, see benchmarks/notes/data_path.md, and the
other goes on while it is held up."""


def workers_of(config: TrainConfig, *, gpu: bool, kept: bool, cores: int) -> int:
    """Number of worker processes of one training process. gpu: whether it trains on one; kept: whether its mixture
    keeps what it made for the next model; cores: of the machine, for each of its training processes.

    Raises ConfigError for workers where processes cannot be forked.
    """
    forks = "fork" in multiprocessing.get_all_start_methods()
    if config.workers and not forks:
        raise ConfigError("train.workers", config.workers, "0 (processes cannot be forked on this system)")
    if config.workers is not None:
        return config.workers
    return min(WORKERS_OF_A_GPU, max(1, cores - 1)) if gpu and forks and not kept else 0


def cores_here() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
