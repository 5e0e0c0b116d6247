"""Out of memory: a batch that does not fit is split in halves; a single item that does not fit gives None."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lcprobe.errors import is_out_of_memory
from lcprobe.probing.engines.freeing import free_memory

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")


def with_oom_backoff(
    work: Callable[[list[T]], Sequence[R]], items: list[T], tokens: int
) -> tuple[list[R | None], int]:
    """Results of `work` in the order of the items, None for a single one that does not fit, and the smallest batch
    that was used.

    tokens: of the longest item, for messages.
    """
    try:
        return list(work(items)), len(items)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory()
    if len(items) == 1:
        log.warning(
            "one sample of %d tokens does not fit into memory and is recorded so (a smaller probe.chunk needs less)",
            tokens,
        )
        return [None], 1
    half = len(items) // 2
    log.warning("out of memory with %d samples of %d tokens: trying %d", len(items), tokens, half)
    first, size = with_oom_backoff(work, items[:half], tokens)
    second, other = with_oom_backoff(work, items[half:], tokens)
    return first + second, min(size, other)
