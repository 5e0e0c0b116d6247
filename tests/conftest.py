"""Shared fixtures: the shipped tokenizer, a small prepared corpus, and no network at all."""

import os
import socket
from pathlib import Path

import pytest

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported: its decorators look at it

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # a core a worker: two pools of threads on the same cores wait for each other

from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.schema import build
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

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


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer()


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory) -> Path:
    """A few of the embedded speeches as one JSONL file: quick to prepare, and real prose."""
    import json

    from lcprobe.data.sources.sotu import speeches

    path = tmp_path_factory.mktemp("corpus") / "speeches.jsonl"
    texts = [text for i, text in enumerate(speeches()) if i % 12 == 0]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def data_settings(corpus_file, tmp_path_factory) -> dict:
    return {"corpus": [str(corpus_file)], "folder": str(tmp_path_factory.mktemp("data")), "held_out": 0.2}


@pytest.fixture(scope="session")
def prepared(data_settings) -> Prepared:
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
