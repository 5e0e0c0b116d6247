"""A process that shares contexts with the first one, and does what that tells it: `python -m` this module, as
`processes` starts it, or evaluate.py under torchrun or srun. It says nothing: the first speaks for all."""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from lcprobe.errors import LcprobeError, PeerError, leave_to_another, run_command
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.engines.split.context import ContextSplit
from lcprobe.probing.engines.split.leading import Orders, follow
from lcprobe.studies.evaluation.dividing.loading import Load, failure_of, load_to_follow
from lcprobe.studies.evaluation.dividing.processes import came, join, open_store
from lcprobe.studies.evaluation.dividing.watching import OtherLooks, limit_of
from lcprobe.studies.evaluation.engines import device
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.training.guards.heart import Heart
from lcprobe.training.guards.peers import Failure, Peers
from lcprobe.training.guards.signals import told_by_signals
from lcprobe.training.guards.watchdog import watched
from lcprobe.training.processes import processes

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def follow_first(minutes: float | None, parent: int | None = None, store: Any = None) -> None:
    """Load what the first process loads, and follow it, until it ends. Raises what keeps this one from following,
    after it has told the first, which says it.

    minutes: probe.hang_minutes; parent: the process that started this one, without which it ends, None: whichever
    did; store: through which they meet, None: as their starter says.
    """
    logging.getLogger("lcprobe").setLevel(logging.ERROR)
    heart = Heart()
    peers = Peers(heart)
    try:
        with told_by_signals() as told:
            looks = OtherLooks(os.getppid() if parent is None else parent, told, peers, minutes)
            with watched(heart, peers, limit_of(0), Path(os.devnull), lambda _: None, looks):
                ranks, orders = join(processes(), heart, store)
                peers.meet()
                peers.beat()
                _follow(ranks, orders, heart)
    except PeerError as error:  # the first one has ended, and has said why
        leave_to_another(error)
        if parent is not None:
            raise
    except LcprobeError as error:
        peers.give_up(Failure(str(error), error.exit_code))
        leave_to_another(error)
        raise
    except KeyboardInterrupt as error:
        leave_to_another(error)
        raise


def _follow(ranks: ContextRanks, orders: Orders, heart: Heart) -> None:
    order = orders.receive()
    while isinstance(order, Load):
        found: list[ContextSplit] = []

        def load(order: Load = order, found: list[ContextSplit] = found) -> None:
            use_kernels(order.kernels)
            found.append(load_to_follow(order, device(), ranks))

        with heart.paused("loading a model"):
            failure = failure_of(load)
        if any(failure is not None for failure in orders.gathered(failure)):
            order = orders.receive()
        else:
            order = follow(in_precision(found.pop(), order.probe.precision), device(), orders)


def main(arguments: Sequence[str]) -> NoReturn:
    """Follow the process that started this one, no longer than it is there. arguments: its number, and
    probe.hang_minutes."""
    code = _followed(int(arguments[0]), None if arguments[1] == "null" else float(arguments[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a group whose first process is gone need not be closed


def _followed(parent: int, minutes: float | None) -> int:
    _end_with_parent()
    set_up_logging()
    keep_memory()
    here = processes()
    store = open_store(here.port, here.size, first=False)
    store.set(came(here.rank), "")
    return run_command(lambda: follow_first(minutes, parent, store))


def _end_with_parent() -> None:
    """Have Linux end this process with the one that started it, even while it is stopped."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
