"""Locks and claims between processes.

process.py   who a process is, and whether it still runs
lock.py      lock files: one process per file
claim.py     locks with a heartbeat, for work and folders that machines share
said_once.py which of several processes says a line
"""

from lcprobe.locks.claim import (
    BEAT_SECONDS,
    Alone,
    Claim,
    ClaimLost,
    Claims,
    folder_claims,
    folder_lock,
    require_kept,
    waited_claim,
)
from lcprobe.locks.lock import LINE_SECONDS, OWNER, file_lock, gone_from, holder_of
from lcprobe.locks.process import Process, children_of, end_tree, is_gone, is_tag_gone, process_tag, this_process

__all__ = [
    "BEAT_SECONDS",
    "LINE_SECONDS",
    "OWNER",
    "Alone",
    "Claim",
    "ClaimLost",
    "Claims",
    "Process",
    "children_of",
    "end_tree",
    "file_lock",
    "folder_claims",
    "folder_lock",
    "gone_from",
    "holder_of",
    "is_gone",
    "is_tag_gone",
    "process_tag",
    "require_kept",
    "this_process",
    "waited_claim",
]
