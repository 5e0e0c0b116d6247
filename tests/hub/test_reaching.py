"""Which failures of the hub pass by themselves, and what each thing that is read from it says then."""

import errno

import httpx
import pytest
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader
from lcprobe.errors import CheckpointError, ConfigError, DataError, ServerError, exit_code_of
from lcprobe.hub import hub_error, hub_is_unreachable, reaching
from lcprobe.models.checkpoints.hub import Hub, download
from lcprobe.schema import build
from lcprobe.tasks.parts.qa_files import _hub_rows
from lcprobe.tasks.text.hub_tokenizers import fetch


def answered(status, kind=HfHubHTTPError):
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x"))
    return kind(f"{status}", response=response)


def because(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), 74),
        (httpx.ReadTimeout("timed out"), 74),
        (TimeoutError(), 74),
        (LocalEntryNotFoundError("not in the cache, and no connection"), 74),
        (because(RuntimeError("a stream ended"), httpx.ReadError("reset by peer")), 74),
        (answered(503), 74),
        (answered(429), 74),
        (OSError(errno.ENOSPC, "No space left on device"), 74),
        (because(DatasetNotFoundError("a/b"), answered(404, RepositoryNotFoundError)), 2),
        (answered(401), 2),
        (HFValidationError("Repo id must be"), 2),
        (DataFilesNotFoundError("no files"), 2),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (because(ConnectionError("reset"), answered(404)), 74),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, Exception) else "",
)
def test_what_passes_by_itself_is_no_bad_input(error, code):
    assert exit_code_of(hub_error("a line", error, DataError)) == code


def _corpus(name):
    return next(iter(Reader(build(DataConfig, {"corpus": [f"hf:{name}"]}, "data")).documents()))


READ = {
    "corpus": (_corpus, DataError),
    "tokenizer": (fetch, ConfigError),
    "questions": (lambda name: _hub_rows(f"hf:{name}"), DataError),
    "checkpoint": (lambda name: download(Hub(name)), CheckpointError),
}


@pytest.mark.parametrize("what", READ)
def test_without_a_network_everything_says_so_and_offline_on_purpose_is_a_setting(monkeypatch, what):
    read, refused = READ[what]
    with pytest.raises(refused, match="HF_HUB_OFFLINE is set"):
        read("nobody/nothing")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for name in reaching.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert "huggingface.co not reachable: " in (hub_is_unreachable() or "")
    with pytest.raises(ServerError, match=r"nobody/nothing.*huggingface\.co not reachable: ") as caught:
        read("nobody/nothing")
    assert exit_code_of(caught.value) == 74
