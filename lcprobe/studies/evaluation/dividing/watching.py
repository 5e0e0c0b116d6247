"""What ends a process that shares contexts while its main thread waits for messages of others, where neither an error
nor a signal reaches it: with NCCL, a process that is gone leaves the others waiting. A thread looks (see
`training.guards.watchdog`, which also ends the first where nothing moves) and says the one line of the command.

the first    a signal, or another process that is gone: after GRACE_SECONDS in which its main thread has not left by
             itself, as errors and Python's handlers of signals let it
others       a signal; the process that started them is gone; the first gives no sign of life: at once, and silently
"""

import os
from collections.abc import Callable

from lcprobe.errors import LcprobeError, PeerError, leave_to_another
from lcprobe.studies.evaluation.dividing.checks import HANG_KEY
from lcprobe.training.guards.heart import Heart
from lcprobe.training.guards.peers import Peers
from lcprobe.training.guards.signals import Told
from lcprobe.training.guards.watchdog import Limit, Reason

GRACE_SECONDS = 3.0


def limit_of(minutes: float | None) -> Limit:
    """How long nothing may move in the first process. minutes: probe.hang_minutes."""
    return Limit(HANG_KEY, minutes, "the same command goes on from what is finished")


class FirstLooks:
    """Of the first process. told: by signals; lost: the error for other processes that are gone."""

    def __init__(self, heart: Heart, told: Told, lost: Callable[[], LcprobeError | None]):
        self._heart, self._told, self._lost = heart, told, lost
        self._marks, self._stays = -1, 0.0

    def __call__(self, ran: float) -> Reason | None:
        """Why this process is to end though its main thread does not; None: there is no reason."""
        heart, told, lost = self._heart, self._told(), self._lost()
        stays = heart.phase != "" and heart.marks == self._marks and (told is not None or lost is not None)
        self._marks, self._stays = heart.marks, self._stays + ran if stays else 0.0
        if self._stays < GRACE_SECONDS:
            return None
        has_cause = lost is not None and lost.exit_code != PeerError.exit_code
        return lost if has_cause or told is None else told


class OtherLooks:
    """Of the others. parent: the process that started this one; minutes: probe.hang_minutes."""

    def __init__(self, parent: int, told: Told, peers: Peers, minutes: float | None):
        self._parent, self._told, self._peers, self._limit = parent, told, peers, limit_of(minutes)
        self._beats, self._silent = 0, 0.0

    def __call__(self, ran: float) -> Reason | None:
        """Why this process is to end; None: there is no reason."""
        told = self._told()
        if told is not None:
            return _left(told)
        if os.getppid() != self._parent:
            return _left(PeerError("the process that started this one is gone"))
        beats = self._peers.beats_of(0)
        self._silent = 0.0 if beats != self._beats else self._silent + ran
        self._beats = beats
        if not self._limit.seconds or self._silent <= self._limit.seconds:
            return None
        error = PeerError(
            f"rank 0 gave no sign of life for {self._silent:.0f} s; {self._limit.resumes} ({HANG_KEY} is the limit)"
        )
        return error if self._peers.rank == 1 else _left(error)


def _left(reason: Reason) -> Reason:
    leave_to_another(reason)
    return reason
