"""JSON over HTTP with the standard library: timeouts, further tries after growing pauses, one line for a failure."""

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lcprobe.errors import ConfigError, ServerError, shorten
from lcprobe.probing.config import ServerConfig

TRIED_AGAIN = (408, 429, 500, 502, 503, 504)
LONGEST_PAUSE = 60.0
"""Seconds."""
WIDEST = 160
"""Characters of a server's message that are shown."""
log = logging.getLogger(__name__)


class Refused(ServerError):
    """A status that another try would not change. status: of HTTP."""

    def __init__(self, url: str, status: int, message: str):
        self.status = status
        super().__init__(f"{url}: status {status} ({message}); allowed: a request that the server can answer")


@dataclass(frozen=True)
class JsonServer:
    """A server at an address, `http://host:port` with or without `/v1`."""

    url: str
    config: ServerConfig

    @classmethod
    def at(cls, address: str, config: ServerConfig) -> "JsonServer":
        """Raises ConfigError for an address that is not one of HTTP."""
        url = address.rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")) or not url.partition("://")[2]:
            raise ConfigError("server", address, "an address such as http://127.0.0.1:8000")
        return cls(url, config)

    def get(self, path: str) -> dict[str, Any]:
        """The answer at a path, `/v1/models`. Raises ServerError."""
        return self._answer(urllib.request.Request(self.url + path, headers=self._headers()))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a body. Raises ServerError; Refused where the server says that the body is wrong."""
        data = json.dumps(body).encode()
        return self._answer(urllib.request.Request(self.url + path, data, self._headers()))

    def _answer(self, request: urllib.request.Request) -> dict[str, Any]:
        for attempt in range(self.config.retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.config.timeout_s) as response:
                    return self._parsed(response.read())
            except urllib.error.HTTPError as error:
                if error.code not in TRIED_AGAIN:
                    raise Refused(self.url, error.code, _message(error)) from None
                reason = f"status {error.code}"
            except (OSError, HTTPException) as error:  # URLError, timeouts, a connection that ends in the middle
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                reason = shorten(" ".join(str(cause).split()), WIDEST) or type(cause).__name__
            if attempt < self.config.retries:
                pause = min(LONGEST_PAUSE, self.config.backoff_s * 2**attempt)
                log.warning("%s: %s; trying again in %g s", self.url, reason, pause)
                time.sleep(pause)
        tries = self.config.retries + 1
        kept = "finished work is kept, and the same command goes on when the server is back"
        raise ServerError(f"{self.url}: no answer in {tries} tries ({reason}); {kept}")

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ServerError(f"{self.url}: an answer that is not a JSON object; allowed: a completions API")
        return answer

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.config.key_file is not None:
            try:
                key = Path(self.config.key_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise ConfigError("probe.server.key_file", self.config.key_file, "a file that can be read") from None
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _message(error: urllib.error.HTTPError) -> str:
    """What a server says about a status, on one line."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, HTTPException):
        return error.reason
    try:
        said = json.loads(text)
        said = said.get("error", said) if isinstance(said, dict) else said
        text = str(said.get("message", said) if isinstance(said, dict) else said)
    except ValueError:
        pass
    return shorten(" ".join(text.split()), WIDEST) or str(error.reason)
