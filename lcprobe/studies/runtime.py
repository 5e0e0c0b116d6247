"""This process on this machine: allocator, log lines, kernels. Changes speed, never a result's definition."""

import ctypes
import logging
import sys

from lcprobe.errors import ConfigError

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> None:
    """Tell glibc to keep freed memory instead of giving it back after every step.

    A small model on a CPU otherwise takes a thousand page faults a step: 1.3 to 4 times the time.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(M_TOP_PAD, 64 << 20)
    except (OSError, AttributeError):  # another C library: slower, not wrong
        return


def set_up_logging() -> None:
    """One plain line a message, on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("lcprobe").setLevel(logging.INFO)
    for noisy in ("httpx", "datasets", "wandb", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def use_kernels(backend: str) -> None:
    """Take this implementation of every op. Raises ConfigError for one that cannot work here."""
    from lcprobe_kernels import backends

    why = backends.missing(backend)
    if why is not None:
        works = [name for name in backends.BACKENDS if backends.missing(name) is None]
        raise ConfigError("kernels.backend", backend, f"{' | '.join(works)} here ({why})")
    backends.use(backend)
