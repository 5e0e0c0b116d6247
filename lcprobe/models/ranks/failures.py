"""What errors say that come from talking to another process."""

import re

OF_COLLECTIVES = re.compile(
    r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|timed out|failed to recv|tcpstore", re.IGNORECASE
)


def is_of_peers(error: BaseException) -> bool:
    """Whether an error says that another process does not answer: torch has no class of its own for it."""
    return isinstance(error, RuntimeError) and OF_COLLECTIVES.search(str(error)) is not None
