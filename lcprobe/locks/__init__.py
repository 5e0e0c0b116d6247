"""Locks and claims between processes.

process.py   who a process is, and whether it still runs
lock.py      lock files: one process per folder or file
claim.py     locks with a heartbeat, for work that machines share
"""

from lcprobe.locks.claim import Alone, Claim, ClaimLost, Claims, require_kept, waited_claim
from lcprobe.locks.lock import LINE_SECONDS, file_lock, folder_lock
from lcprobe.locks.process import Process, is_gone, is_tag_gone, process_tag, this_process

__all__ = [
    "LINE_SECONDS",
    "Alone",
    "Claim",
    "ClaimLost",
    "Claims",
    "Process",
    "file_lock",
    "folder_lock",
    "is_gone",
    "is_tag_gone",
    "process_tag",
    "require_kept",
    "this_process",
    "waited_claim",
]
