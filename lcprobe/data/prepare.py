"""Prepare a corpus: token shards and haystacks on disk, built once; training and probing map the files into memory.

    tokens-00000.bin ...   training documents, each after a BOS where the tokenizer has one, uint16 or uint32, flat
    starts.npy             position of each document's first token
    train.txt, probe.txt   haystack text of either split, with .ids.npy and .offsets.npy beside each
    manifest.json          digests of every file, of corpus, tokenizer and code

The folder's name is a digest of corpus, tokenizer and settings, so that other ones are another folder.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import documents, fingerprint
from lcprobe.errors import DataError
from lcprobe.files import (
    MANIFEST,
    digest_bytes,
    digest_json,
    digest_source,
    folder_lock,
    publish_folder,
    read_json,
    verify_folder,
)
from lcprobe.seeds import seed_of
from lcprobe.tasks.names import Split
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

SHARD_TOKENS = 1 << 26
"""Tokens per shard file."""
BATCH_CHARS = 2_000_000
"""Characters of text tokenised at once, on all cores."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A prepared corpus, opened for reading."""

    folder: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer

    @cached_property
    def shards(self) -> list[np.ndarray]:
        """The shards of training tokens, memory-mapped."""
        names = sorted(name for name in self.manifest["files"] if name.startswith("tokens-"))
        return [np.memmap(self.folder / name, dtype=self.manifest["dtype"], mode="r") for name in names]

    @cached_property
    def starts(self) -> np.ndarray:
        """(n_documents,) int64: index of each training document's first token."""
        return np.load(self.folder / "starts.npy")

    @property
    def n_tokens(self) -> int:
        """Number of training tokens."""
        return self.manifest["train_tokens"]

    def tokens(self, start: int, n: int) -> np.ndarray:
        """(n,) int64 training tokens from `start`."""
        out = np.empty(n, dtype=np.int64)
        done = 0
        while done < n:
            shard, at = divmod(start + done, SHARD_TOKENS)
            piece = self.shards[shard][at : at + n - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def materials(self, split: Split) -> Materials:
        """Tokenizer and haystacks, with the documents of a split as their corpus."""
        return Materials(self.tokenizer, self._stream(split))

    def _stream(self, split: Split) -> TokenStream:
        text = (self.folder / f"{split}.txt").read_bytes().decode("utf-8")
        ids, offsets = (np.load(self.folder / f"{split}.{part}.npy") for part in ("ids", "offsets"))
        return TokenStream("corpus", text, ids, offsets, self.tokenizer)


def prepare(config: DataConfig, verify: bool = False) -> Prepared:
    """Open the prepared corpus of a config, and build it first where it does not exist. verify: compare every file
    with its digest.

    Raises ConfigError for a corpus or tokenizer that does not exist, DataError for damaged or too little data.
    """
    tokenizer = load_tokenizer(config.tokenizer, config.bos)
    made_from = {
        "corpus": fingerprint(config.corpus),
        "text_field": config.text_field,
        "tokenizer": tokenizer.digest,
        "bos": tokenizer.bos_id,
        "held_out": config.held_out,
        "haystack_chars": config.haystack_chars,
        "max_tokens": config.max_tokens,
        "layout": 1,
    }
    if tokenizer.folds:
        made_from["haystack"] = "as the tokenizer expresses it"
    folder = Path(config.folder) / digest_json(made_from)[:16]
    if not (folder / MANIFEST).is_file():
        with folder_lock(folder.parent / f".{folder.name}.making"):
            if not (folder / MANIFEST).is_file():
                _build(config, tokenizer, made_from, folder)
        shutil.rmtree(folder.parent / f".{folder.name}.making", ignore_errors=True)
    manifest = _read_manifest(folder, verify)
    return Prepared(folder, manifest, tokenizer)


def _read_manifest(folder: Path, verify: bool) -> dict[str, Any]:
    """The manifest of a prepared corpus. Raises DataError where files do not match it."""
    manifest, damage = verify_folder(folder) if verify else (read_json(folder / MANIFEST), None)
    for name, fact in manifest.get("files", {}).items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if damage is None and size != fact["bytes"]:
            damage = f"{name} has {size} bytes instead of {fact['bytes']}"
    if damage:
        raise DataError(
            f"{folder}: {damage}; allowed: the files as they were prepared (delete the folder to prepare it again)"
        )
    return manifest


def _build(config: DataConfig, tokenizer: Tokenizer, made_from: dict[str, Any], folder: Path) -> None:
    log.info("preparing %s with a vocabulary of %d", " ".join(map(str, config.corpus)), tokenizer.vocab_size)
    temporary = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    dtype = "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"
    writer = _ShardWriter(temporary, dtype)
    haystacks: dict[str, list[str]] = {"train": [], "probe": []}
    chars = {"train": 0, "probe": 0}
    starts: list[int] = []
    corpus_digest, n_documents, probe_documents = digest_bytes(), 0, 0
    bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]

    def flush(texts: list[str]) -> None:
        for ids in tokenizer.encode_batch(texts):
            starts.append(writer.n_tokens)
            writer.add(np.concatenate([np.array(bos, dtype=np.int32), ids]))
        texts.clear()

    waiting: list[str] = []
    # documents are not cut, so that max_tokens is exceeded by up to one batch: a small one where max_tokens is small
    batch_chars = BATCH_CHARS if config.max_tokens is None else min(BATCH_CHARS, config.max_tokens)
    for text, held_out in _split(config):
        n_documents += 1
        probe_documents += held_out
        corpus_digest = digest_bytes(corpus_digest.encode(), text.encode("utf-8", "surrogatepass"))
        split = "probe" if held_out else "train"
        if chars[split] < config.haystack_chars:
            haystacks[split].append(text[: config.haystack_chars - chars[split]])
            chars[split] += len(text)
        if not held_out:
            waiting.append(text)
        if sum(map(len, waiting)) > batch_chars:
            flush(waiting)
            if config.max_tokens is not None and writer.n_tokens >= config.max_tokens and haystacks["probe"]:
                break
    flush(waiting)
    writer.close()
    if not haystacks["probe"] or not starts:
        shutil.rmtree(temporary, ignore_errors=True)
        corpus = " ".join(map(str, config.corpus))
        raise DataError(f"{corpus}: {n_documents} documents; allowed: at least 2, to train on and to hold out")
    np.save(temporary / "starts.npy", np.array(starts, dtype=np.int64))
    for split, texts in haystacks.items():
        text = tokenizer.expressed("\n\n".join(texts))
        ids, offsets = tokenizer.encode_with_offsets(text)
        (temporary / f"{split}.txt").write_bytes(text.encode("utf-8", "replace"))
        np.save(temporary / f"{split}.ids.npy", ids)
        np.save(temporary / f"{split}.offsets.npy", offsets)
    facts = {
        "made_from": made_from,
        "code": digest_source("lcprobe.data", "lcprobe.tasks"),
        "corpus_digest": corpus_digest,
        "tokenizer_digest": tokenizer.digest,
        "vocab_size": tokenizer.vocab_size,
        "dtype": dtype,
        "documents": n_documents,
        "probe_documents": probe_documents,
        "train_tokens": writer.n_tokens,
    }
    publish_folder(temporary, folder, facts)
    log.info("prepared %d documents, %d training tokens in %s", n_documents, writer.n_tokens, folder)


def _split(config: DataConfig) -> Iterator[tuple[str, bool]]:
    """Every document and whether it is held out, decided by a hash of its text.

    Where the hash holds out none, the last document is held out; of a single document, its end.
    """
    before: str | None = None
    held, number = 0, 0
    for text in documents(config.corpus, config.text_field):
        if before is not None:
            out = seed_of("held out", digest_bytes(before.encode("utf-8", "surrogatepass"))) < config.held_out * 2**63
            held += out
            yield before, out
        before, number = text, number + 1
    if before is None:
        return
    if number == 1:
        cut = int(len(before) * (1 - config.held_out))
        line = before.find("\n", cut) + 1
        cut = line if before[line:].strip() and line else cut  # a cut at the very end would hold nothing out
        yield before[:cut], False
        before = before[cut:]
    yield before, held == 0


class _ShardWriter:
    """Appends tokens to shard files of SHARD_TOKENS each."""

    def __init__(self, folder: Path, dtype: str):
        self._folder, self._dtype, self._file = folder, dtype, None
        self.n_tokens = 0

    def add(self, ids: np.ndarray) -> None:
        """Append one document."""
        done = 0
        while done < len(ids):
            shard, at = divmod(self.n_tokens, SHARD_TOKENS)
            if at == 0:
                self.close()
                self._file = open(self._folder / f"tokens-{shard:05d}.bin", "wb")  # noqa: SIM115
            piece = ids[done : done + SHARD_TOKENS - at]
            assert self._file is not None
            self._file.write(piece.astype(self._dtype).tobytes())
            self.n_tokens += len(piece)
            done += len(piece)

    def close(self) -> None:
        """Finish the current shard."""
        if self._file is not None:
            self._file.close()
            self._file = None
