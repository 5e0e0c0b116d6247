"""A run that does not fit into memory ends with one line that names the setting to change, by the plan's estimate."""

from collections.abc import Iterator
from contextlib import contextmanager

from lcprobe.errors import MemoryLimitError, is_out_of_memory, shorten
from lcprobe.studies.planning.memory.estimate import memory_here, memory_of, memory_remedy
from lcprobe.studies.planning.plan import PlannedRun

SMALLER = 0.8
"""What a remedy has to come to, of what did not fit: the rest is for what the estimate leaves out."""


@contextmanager
def memory_advice(run: PlannedRun) -> Iterator[None]:
    """Raises MemoryLimitError for errors by which the device, or the machine, says that its memory was not enough."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        needed, available = memory_of(run).total, memory_here()
        least = min(SMALLER * needed, needed if available is None else available)
        said = shorten(" ".join(str(error).split()) or type(error).__name__, 160)
        estimate = f"{needed / 1e9:.2g} GB by the plan's estimate"
        raise MemoryLimitError(
            f"{run.name}: out of memory ({said}); allowed: less than now ({estimate}): {memory_remedy(run, least)}"
        ) from error
