"""The smallest useful mixer, encoding, extension, task and source of documents: what a newcomer adds, one file each.

Only tests register them, and everything else in the house must work for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from lcprobe.choices import Registry
from lcprobe.data.sources import SOURCES
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.tasks import TASKS

TOYS: dict[str, tuple[Registry, str]] = {
    "toy_mixer": (MIXERS, "tests.toys.mixer:MovingAverage"),
    "toy_encoding": (POSITIONAL, "tests.toys.encoding:LogDistance"),
    "toy_task": (TASKS, "tests.toys.task:MarkedWord"),
    "toy_extension": (EXTENSIONS, "tests.toys.extension:Flattened"),
    "toy_source": (SOURCES, "tests.toys.source:Sentences"),
}


@contextmanager
def registered(*names: str) -> Iterator[None]:
    """The named toys, or all of them, under these names while the block runs."""
    names = names or tuple(TOYS)
    try:
        for name in names:
            registry, target = TOYS[name]
            registry[name] = target
        yield
    finally:
        for name in names:
            TOYS[name][0].pop(name, None)
