"""Which process of a run is missing, for those that wait for it.

Each process tells the others, in the store through which they met, that it lives and what it does. When a collective
fails, or nothing moves, the others know whose sign of life has stopped, or who is behind. A process that cannot go on
leaves there why.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from torch import distributed
from torch.distributed import distributed_c10d

from lcprobe.errors import (
    LcprobeError,
    NumericsError,
    PeerError,
    StoppedEarly,
    StoppedUnsaved,
    exit_code_of,
    is_out_of_memory,
    leave_to_another,
    shorten,
)
from lcprobe.locks import ClaimLost
from lcprobe.models.ranks.failures import is_of_peers
from lcprobe.training.guards.heart import Heart
from lcprobe.training.ranks import ErrorOfMain, world_size

T = TypeVar("T")
BEAT_SECONDS = 1.0
GONE_BEATS = 3
"""Beats without a sign of life after which a process is taken as gone."""
SILENT_SECONDS = 30.0
"""Without a sign of life after which a process is not waited for any more, whatever it was doing."""
ANSWER_SECONDS = 5.0
"""In which the store answers, unless the process that keeps it is stopped."""
LAST_SECONDS, LAST_SECONDS_PAUSED = 5.0, 20.0
"""After another process has said why it cannot go on, in which this one may find out by itself, and end in order;
while it does something else than training, such as saving. torchrun kills after 30."""
READ_SECONDS = 3.0
"""For which the process that keeps the store stays, such that the others can read why it cannot go on."""


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a process."""

    beats: int
    step: int
    doing: str
    paused: bool


class Failure(NamedTuple):
    """An error that a user can act on, as processes tell it each other."""

    message: str
    exit_code: int


class FailedElsewhere(LcprobeError):
    """What another process met. exit_code: as there."""

    def __init__(self, failure: Failure):
        self.exit_code = failure.exit_code
        super().__init__(failure.message)


KNOWN_TO_ALL = (PeerError, FailedElsewhere, StoppedEarly, StoppedUnsaved, NumericsError, ClaimLost, ErrorOfMain)
"""Errors that no process of a run has alone, or that another one has said."""
ANY = "lcprobe/given up"
"""Key in the store that is there once a process has given up."""
DEFECT = 1
"""Exit code of an error that no user can act on."""


class Peers:
    """The processes of a run, as this one sees them; with one process, and before they have joined, nobody."""

    def __init__(self, heart: Heart):
        self._heart, self._beats = heart, 0
        self._asking: threading.Thread | None = None
        self._one = threading.Lock()
        self.meet()

    def meet(self) -> None:
        """See who is there: called again when processes have joined, or left."""
        several = distributed.is_initialized() and distributed.get_world_size() > 1
        self.rank, self._size = (distributed.get_rank(), distributed.get_world_size()) if several else (0, 1)
        self._heard: dict[int, tuple[int, float]] = {}
        self._cause: FailedElsewhere | None = None
        self._told_at = 0.0
        # its own connection: the one of torch is held by a main thread that waits for others
        shared: Any = distributed_c10d._get_default_store() if several else None
        self._store: Any = shared.clone() if several else None

    def beat(self) -> None:
        """Give a sign of life."""
        store, heart, self._beats = self._store, self._heart, self._beats + 1
        if store is None:
            return
        sign = [self._beats, heart.step, heart.pause or heart.phase or "starting", bool(heart.pause)]
        self._asked(lambda: store.set(_key(self.rank), json.dumps(sign)))

    def signs(self) -> dict[int, Sign] | None:
        """The last sign of each process that gave any; None where the store is gone, or does not answer."""
        found = self._values(_key)
        return None if found is None else {number: Sign(*value) for number, value in found.items()}

    def is_waited_for(self) -> bool:
        """Whether another process, which still gives signs of life, does something else than training, for which this
        one waits."""
        signs, now = (self.signs() if self._store is not None else None) or {}, time.monotonic()
        for number, sign in signs.items():
            if number not in self._heard or self._heard[number][0] != sign.beats:
                self._heard[number] = (sign.beats, now)
        return any(
            sign.paused and now - self._heard[number][1] <= SILENT_SECONDS
            for number, sign in signs.items()
            if number != self.rank
        )

    def beats_of(self, number: int) -> int:
        """How often a process has given a sign of life, as far as this one can know; 0: never."""
        sign = (self.signs() or {}).get(number) if self._store is not None else None
        return 0 if sign is None else sign.beats

    def give_up(self, failure: Failure) -> None:
        """Tell the others why this process cannot go on, before it ends."""
        store, key = self._store, _failure_key(self.rank)
        if store is not None:
            # the answer: it is there
            self._asked(lambda: (store.set(key, json.dumps(failure)), store.set(ANY, key), store.check([ANY])))

    def given_up(self) -> dict[int, Failure]:
        """Why processes cannot go on, by rank, of those that have said so."""
        store = self._store
        if store is None or not self._asked(lambda: store.check([ANY])):  # one question, however many there are
            return {}
        return {number: Failure(*value) for number, value in (self._values(_failure_key) or {}).items()}

    def cause(self) -> FailedElsewhere | None:
        """What another process has said before it ended, which this one ends with, too; of several what a user can
        act on. The first process says it; the one that met it has said it on its machine."""
        if self._cause is None:  # the process that keeps the store may be gone later
            told = {number: failure for number, failure in self.given_up().items() if number != self.rank}
            if not told:
                return None
            number = min(told, key=lambda n: (told[n].exit_code == DEFECT, n))
            failure = told[number]._replace(message=f"rank {number}: {told[number].message}")
            self._cause, self._told_at = FailedElsewhere(failure), time.monotonic()
            if self.rank:
                leave_to_another(self._cause)
        return self._cause

    def waits_in_vain(self, ran: float) -> FailedElsewhere | None:
        """As `cause`, once this process has had the time to notice by itself: what waits for another on a GPU does
        not. For a watchdog, see `Looks`."""
        error, limit = self.cause(), LAST_SECONDS_PAUSED if self._heart.pause else LAST_SECONDS
        return error if error is not None and time.monotonic() - self._told_at > limit else None

    def _values(self, key: Callable[[int], str]) -> dict[int, Any] | None:
        """What each process has set, of those that have; None where the store is gone, or does not answer."""
        store, keys = self._store, {number: key(number) for number in range(self._size)}
        found = self._asked(lambda: {n: store.get(one) for n, one in keys.items() if store.check([one])})
        return None if found is None else {number: json.loads(value) for number, value in found.items()}

    def _asked(self, ask: Callable[[], T]) -> T | None:
        """What the store answers; None where it is gone, or where the process that keeps it is stopped."""
        answer: list[T] = []

        def run() -> None:
            with suppress(RuntimeError):
                answer.append(ask())

        with self._one:
            if self._asking is None or not self._asking.is_alive():  # else it waits for an earlier answer
                self._asking = threading.Thread(target=run, name="signs of life", daemon=True)
                self._asking.start()
                self._asking.join(ANSWER_SECONDS)
        return answer[0] if answer else None

    def missing(self) -> str:
        """Who is gone or behind, in words; empty where that is not known. Takes seconds."""
        if self._store is None:
            return ""
        before = self.signs()
        for _ in range(GONE_BEATS):
            time.sleep(BEAT_SECONDS)
            self.beat()
        after = self.signs()
        if before is None or after is None:
            return "rank 0 is gone or stopped"
        others = {number: sign for number, sign in after.items() if number != self.rank}
        gone = [
            n
            for n in range(self._size)
            if n != self.rank and (n not in others or (n in before and before[n].beats == others[n].beats))
        ]
        if not gone:
            own = self._heart
            elsewhere = [n for n, sign in others.items() if (sign.step, sign.doing) != (own.step, own.phase)]
            return "; ".join(f"rank {n} is {_where(others[n])}" for n in elsewhere)
        last = {n: others.get(n) or before.get(n) for n in gone}
        seen = {n: f" (last seen {_where(sign)})" if sign else "" for n, sign in last.items()}
        return "; ".join(f"rank {n} gave no sign of life{seen[n]}" for n in gone)


@contextmanager
def told_to_others() -> Iterator[None]:
    """The other processes of the run are told of an error that this one may have alone, before it ends: what they
    see is that it is gone."""
    try:
        yield
    except KNOWN_TO_ALL:
        raise
    except Exception as error:
        if world_size() > 1:
            peers, code = Peers(Heart()), exit_code_of(error)
            said = str(error) if isinstance(error, LcprobeError) else f"{type(error).__name__}: {error}"
            peers.give_up(Failure(" ".join(said.split()), code))
            if not peers.rank:
                time.sleep(READ_SECONDS)
        raise


@contextmanager
def peer_errors(peers: Peers) -> Iterator[None]:
    """For the error by which torch says, in a collective, that another process does not answer: raises
    FailedElsewhere where that one has said why, else PeerError."""
    try:
        yield
    except RuntimeError as error:
        of_loader = "DataLoader" in str(error)
        if world_size() == 1 or is_out_of_memory(error) or of_loader or not is_of_peers(error):
            raise
        cause = peers.cause()
        if cause is not None:
            raise cause from error
        who = peers.missing() or "which one is not known"
        said = shorten(" ".join(str(error).split()), 160)
        raise PeerError(
            f"another process of the run does not answer: {who} ({said}); the same command resumes from the last"
            " checkpoint"
        ) from error


def _where(sign: Sign) -> str:
    return f"at step {sign.step}, {sign.doing}"


def _key(number: int) -> str:
    return f"lcprobe/alive/{number}"


def _failure_key(number: int) -> str:
    return f"lcprobe/given up/{number}"
