"""Whether the hub can be asked, and which of its failures pass by themselves: a network that is gone, a server that
has no time. An unknown name or missing rights do not, nor does being offline because it was asked for."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from lcprobe.errors import NO_ACCESS, LcprobeError, ServerError

CONNECT_SECONDS = 3.0
"""How long the hub may take to answer a connection: its library would try again for half a minute."""
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
HTTP_LIBRARIES = ("requests", "httpx", "httpcore", "urllib3", "aiohttp", "huggingface_hub")
BUSY = (408, 425, 429)
"""HTTP statuses below 500 after which the same request may be answered."""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that no network is to be used."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def hub_is_unreachable() -> str | None:
    """Why the hub cannot be asked, in words, after CONNECT_SECONDS at most; None where it can, or where a proxy
    decides."""
    from huggingface_hub import constants

    if is_offline():
        return "HF_HUB_OFFLINE is set"
    if any(os.environ.get(name) for name in PROXIES):
        return None
    parts = urlsplit(constants.ENDPOINT)
    address = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    answered: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=CONNECT_SECONDS).close()
            answered.append(None)
        except OSError as error:
            answered.append(error.strerror or str(error) or type(error).__name__)

    thread = threading.Thread(target=connect, daemon=True)  # a name may take long to resolve
    thread.start()
    thread.join(CONNECT_SECONDS)
    why = answered[0] if answered else f"no answer in {CONNECT_SECONDS:.0f} s"
    return None if why is None else f"{address[0]} not reachable: {why}"


@contextmanager
def without_retries() -> Iterator[None]:
    """What is in the caches of the hub's libraries is found in the block, and nothing else is waited for."""
    import datasets.config
    import huggingface_hub.constants

    before = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def hub_error(line: str, error: BaseException | None, otherwise: Callable[[str], LcprobeError]) -> LcprobeError:
    """The error that says a line about what was not had from the hub: a ServerError where the same command may have
    it later, else what `otherwise` makes of the line. error: of a library; None where the hub was unreachable, and
    not asked. Not for a block of `without_retries`."""
    passes = not is_offline() if error is None else _passes(error)
    return ServerError(line) if passes else otherwise(line)


def _passes(error: BaseException) -> bool:
    """The outermost error decides of which it is known: the libraries have no common base, and wrap one another's."""
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return status in BUSY or status >= 500
        if isinstance(one, ValueError):  # a malformed name
            continue
        of_http = type(one).__module__.partition(".")[0] in HTTP_LIBRARIES
        if of_http or isinstance(one, ConnectionError | TimeoutError):
            return True
        if isinstance(one, OSError) and one.errno is not None:  # of the disk that its cache is on
            return one.errno not in NO_ACCESS
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it comes from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _status(error: Any) -> int | None:
    """The HTTP status that a library's error carries."""
    for found in (lambda: error.response.status_code, lambda: error.status):  # requests, httpx and the hub; aiohttp
        with suppress(AttributeError):
            status = found()
            if isinstance(status, int):
                return status
    return None
