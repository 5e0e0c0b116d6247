"""Settings of this process: memory allocator, logging, kernel backend. They change speed, never what is computed."""

import ctypes
import logging
import os
import sys
from typing import TextIO

from lcprobe.errors import ConfigError
from lcprobe.models.config import KernelsConfig

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> None:
    """Tell glibc to keep freed memory instead of returning it to the system after every step.

    A small model on a CPU otherwise has a thousand page faults per step and takes 1.3 to 4 times as long.
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


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is when a message comes: it may be replaced, and the one before closed."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> None:
    """Log messages as plain lines on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ToStderr()], force=True)
    logging.getLogger("lcprobe").setLevel(logging.INFO)
    for noisy in ("httpx", "datasets", "wandb"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def use_kernels(kernels: KernelsConfig) -> None:
    """Select a backend for every op. Raises ConfigError for one that does not work on this machine."""
    from lcprobe_kernels import backends

    reason = backends.missing(kernels.backend)
    if reason is not None:
        available = [name for name in backends.BACKENDS if backends.missing(name) is None]
        raise ConfigError("kernels.backend", kernels.backend, f"{' | '.join(available)} here ({reason})")
    backends.use(kernels.backend)
    backends.use_float32_products(kernels.float32)


def machine_memory() -> float | None:
    """Bytes of this machine's memory; None where it is unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return None
