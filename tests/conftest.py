"""Shared fixtures: the shipped tokenizer, a small prepared corpus, and no network at all.

The package is imported inside fixtures: the process that only hands out tests to workers needs none of it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: its decorators look at it

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # a core a worker: two pools of threads on the same cores wait for each other

from tests.shared import made_once

if TYPE_CHECKING:
    from lcprobe.data.prepare import Prepared
    from lcprobe.tasks.text.haystack import Materials
    from lcprobe.tasks.text.tokenizer import Tokenizer


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """The collector of garbage does not look through modules and tests, which stay: it was a tenth of the time."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_unconfigure(config):
    """Extension modules complain of what is left when Python ends."""
    gc.unfreeze()


ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """An accidental download fails at once instead of after many retries."""
    real = socket.socket.connect

    def connect(self, address):
        if self.family == socket.AF_UNIX or (
            isinstance(address, tuple) and address[0] in ("127.0.0.1", "localhost", "::1")
        ):
            return real(self, address)
        raise OSError(f"tests do not use the network: {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard():
    """A suite in the background of a shell, or under nohup, ignores the signals that tests of stopping send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="module")
def few_charts():
    """Reports have one chart, but for the tests of reports."""
    from tests.charts import charts

    with charts(("length",)):
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    from lcprobe.tasks.text.tokenizer import load_tokenizer

    return load_tokenizer()


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> Path:
    """A few of the embedded speeches as one JSONL file: quick to prepare, and real prose."""
    import json

    from lcprobe.data.sources.sotu import speeches

    def write(folder: Path) -> None:
        texts = [text for i, text in enumerate(speeches()) if i % 12 == 0]
        lines = "\n".join(json.dumps({"text": text}) for text in texts)
        (folder / "speeches.jsonl").write_text(lines, encoding="utf-8")

    return made_once(tmp_path_factory, "corpus", write) / "speeches.jsonl"


@pytest.fixture(scope="session")
def data_settings(corpus_file, tmp_path_factory) -> dict:
    """The corpus, prepared once for all workers."""
    from lcprobe.data.config import DataConfig
    from lcprobe.data.prepare import prepare
    from lcprobe.schema import build

    settings = {"corpus": [str(corpus_file)], "held_out": 0.2}

    def prepared_in(folder: Path) -> None:
        prepare(build(DataConfig, settings | {"folder": str(folder)}, "data"))

    return settings | {"folder": str(made_once(tmp_path_factory, "data", prepared_in))}


@pytest.fixture(scope="session")
def prepared(data_settings) -> Prepared:
    from lcprobe.data.config import DataConfig
    from lcprobe.data.prepare import prepare
    from lcprobe.schema import build

    return prepare(build(DataConfig, data_settings, "data"))


@pytest.fixture(scope="session")
def materials(prepared) -> Materials:
    return prepared.materials("probe")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def without_digits(tmp_path_factory) -> Path:
    """A tokenizer of bytes that lacks those of the digits."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("tokenizer") / "letters.json"
    letters = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if not c.isdigit()]
    words = [f"Ġ{c}" for c in letters if c.isascii() and c.isalpha()]
    vocab = {c: i for i, c in enumerate([*letters, *words])}
    inner = tokenizers.Tokenizer(models.BPE(vocab, [("Ġ", word[1]) for word in words]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.save(str(path))
    return path
