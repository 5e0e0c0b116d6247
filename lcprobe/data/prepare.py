"""Prepare a corpus: token shards and haystacks on disk, built once; training and probing map the files into memory.

    tokens-00000.bin ...   training documents, each after a BOS where the tokenizer has one, uint16 or uint32, flat
    starts.npy             position of each document's first token
    train.txt, probe.txt   haystack text of either split, with .ids.npy and .offsets.npy beside each
    manifest.json          digests of every file, of corpus, tokenizer and code

The folder's name is a digest of corpus, tokenizer and settings, so that other ones are another folder. What was
prepared of a text is found by the text's digest too, wherever the text is now: models that were trained on it need
nothing else.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.data import shards
from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import check_corpus, fingerprint, notes
from lcprobe.data.preparing.build import UNFINISHED, Build
from lcprobe.data.preparing.held_out import digest_text
from lcprobe.data.preparing.leftovers import drop_changed, remove_unfinished
from lcprobe.data.preparing.progress import PrepareObserver, unobserved
from lcprobe.data.preparing.writing import STATE
from lcprobe.errors import ConfigError, DataError, ReadError
from lcprobe.files import (
    MANIFEST,
    digest_file,
    digest_json,
    publish_folder,
    read_json,
    verify_folder,
)
from lcprobe.locks import OWNER, Claim, ClaimLost, require_kept, waited_claim
from lcprobe.tasks.names import Split
from lcprobe.tasks.text.haystack import Materials, TokenStream, require_word_starts
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from lcprobe.words import counted

ALWAYS_VERIFIED = 1 << 25
"""Bytes of a file that is compared with its digest whenever a corpus is opened: a thirtieth of a second."""

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
            shard, at = divmod(start + done, shards.SHARD_TOKENS)
            piece = self.shards[shard][at : at + n - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def materials(self, split: Split) -> Materials:
        """Tokenizer and haystacks, with the documents of a split as their corpus."""
        return Materials(self.tokenizer, lambda: self._stream(split))

    def _stream(self, split: Split) -> TokenStream:
        text = (self.folder / f"{split}.txt").read_bytes().decode("utf-8")
        ids, offsets = (np.load(self.folder / f"{split}.{part}.npy") for part in ("ids", "offsets"))
        return TokenStream("corpus", text, ids, offsets, self.tokenizer)


def prepare(
    config: DataConfig, verify: bool = False, trained_on: str = "", observe: PrepareObserver = unobserved
) -> Prepared:
    """Open the prepared corpus of a config, and build it first where it does not exist: what a killed process left of
    it is gone on from. verify: compare every file with its digest. trained_on: digest of the text that is wanted;
    then what is prepared of it is enough, the text itself is not looked for, and another text is not prepared.
    observe: is told how far building is.

    Raises ConfigError for a corpus or tokenizer that does not exist or cannot be used, DataError for damaged or too
    little data, ReadError and ServerError for what a disk or network does not give now: what was prepared stays then.
    """
    tokenizer = load_tokenizer(config.tokenizer, config.bos)
    require_word_starts(tokenizer)
    folder = find_prepared(config, trained_on) or _place(config, tokenizer, trained_on)
    if not (folder / MANIFEST).is_file():
        check_corpus(config.corpus, config.text_field)
        _require_text(config, trained_on, manifest_of(config, trained_on))
        own = waited_claim(folder.parent, f".{folder.name}", f"{folder}", wait="prepares it", ending=OWNER)
        with _made(folder.parent), own as claim:
            if not (folder / MANIFEST).is_file():
                _build(config, tokenizer, folder, observe, claim)
    remove_unfinished(folder.parent)
    manifest = _read_manifest(folder, verify)
    _require_text(config, trained_on, manifest)
    return Prepared(folder, manifest, tokenizer)


def _require_text(config: DataConfig, trained_on: str, manifest: Mapping[str, Any]) -> None:
    """Raises DataError where the text is known that is wanted, and it is another one."""
    if trained_on and manifest["corpus_digest"] != trained_on:
        given = f"trained on corpus {trained_on[:16]}, data.corpus is now {manifest['corpus_digest'][:16]}"
        raise DataError(f"{' '.join(map(str, config.corpus))}: {given}; allowed: the text as it was")


def manifest_of(config: DataConfig, wanted: str, anywhere: bool = True) -> dict[str, str]:
    """The digests of text and tokenizer that the manifest of a config has, or would have: nothing is prepared.
    wanted: the text's digest as it should be, which is taken for granted where the text is read from a network.
    anywhere: whether what was prepared of that text is enough, wherever it is now.

    Raises ConfigError and DataError for a corpus that does not exist or cannot be used.
    """
    tokenizer = load_tokenizer(config.tokenizer, config.bos)
    digests = {"corpus_digest": wanted, "tokenizer_digest": tokenizer.digest}
    if anywhere and find_prepared(config, wanted) is not None:
        return digests
    folder = _place(config, tokenizer, wanted)
    if (folder / MANIFEST).is_file():
        return digests | {"corpus_digest": _read_manifest(folder, False)["corpus_digest"]}
    check_corpus(config.corpus, config.text_field)
    if not all(source.create().is_local() for source in config.corpus):
        return digests
    return digests | {"corpus_digest": digest_text(config, wanted)}


def find_prepared(config: DataConfig, corpus_digest: str) -> Path | None:
    """The folder that was prepared of a text with the settings of a config, wherever the text is; None where there is
    none, and for a digest that is not known."""
    if not corpus_digest:
        return None
    wanted = _settings(config, load_tokenizer(config.tokenizer, config.bos))
    for path in sorted(Path(config.folder).glob(f"*/{MANIFEST}")):
        with suppress(OSError, ValueError):  # being deleted, or damaged
            manifest = read_json(path)
            if manifest.get("corpus_digest") == corpus_digest:
                made_from = {name: value for name, value in manifest["made_from"].items() if name != "corpus"}
                if made_from == wanted:
                    return path.parent
    return None


def _made_from(config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a prepared corpus depends on."""
    return {**_settings(config, tokenizer), "corpus": fingerprint(config.corpus)}


def _place(config: DataConfig, tokenizer: Tokenizer, trained_on: str) -> Path:
    """The folder of a prepared corpus. Raises ConfigError where there is no text, which says where else what it was
    `trained_on` may be."""
    try:
        return Path(config.folder) / digest_json(_made_from(config, tokenizer))[:16]
    except ConfigError as error:
        if not trained_on:
            raise
        places = f"at its place or another (data.corpus=...), or what was prepared of it in {config.folder}"
        raise ConfigError(error.key, error.given, f"the text {places} (corpus {trained_on[:16]})") from None


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder that exists while the block runs, and afterwards if something is in it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # of what is not empty
            for path in missing:
                path.rmdir()


def _settings(config: DataConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a prepared corpus depends on besides its text."""
    settings = {
        "text_field": config.text_field,
        "tokenizer": tokenizer.digest,
        "bos": tokenizer.bos_id,
        "held_out": config.held_out,
        "haystack_chars": config.haystack_chars,
        "max_tokens": config.max_tokens,
        "layout": 1,
    }
    if config.near_duplicates is not None:
        settings["near_duplicates"] = config.near_duplicates
    weights = [source.config.weight for source in config.corpus]
    if weights[0] is not None:
        settings |= {"weights": weights, "when_a_source_ends": config.when_a_source_ends}
    if tokenizer.folds:
        settings["haystack"] = "as the tokenizer expresses it"
    return settings


def _read_manifest(folder: Path, verify: bool) -> dict[str, Any]:
    """The manifest of a prepared corpus. Raises DataError where files do not match it: those of up to ALWAYS_VERIFIED
    bytes by their digest, others by their size alone unless `verify`."""
    manifest, damage = verify_folder(folder) if verify else (read_json(folder / MANIFEST), None)
    for name, fact in manifest.get("files", {}).items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if damage is None and size != fact["bytes"]:
            damage = f"{name} has {size} bytes instead of {fact['bytes']}"
        if damage is None and fact["bytes"] <= ALWAYS_VERIFIED and digest_file(path) != fact["sha256"]:
            damage = f"{name} does not match its digest"
    if damage:
        raise DataError(
            f"{folder}: {damage}; allowed: the files as they were prepared (delete the folder to prepare it again)"
        )
    return manifest


def _build(config: DataConfig, tokenizer: Tokenizer, folder: Path, observe: PrepareObserver, claim: Claim) -> None:
    corpus = " ".join(map(str, config.corpus))
    log.info("preparing %s with a vocabulary of %d", corpus, tokenizer.vocab_size)
    for note in notes(config.corpus):
        log.info("%s", note)
    temporary = folder.parent / f".{folder.name}.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    about = {"corpus": list(map(str, config.corpus)), "settings": _settings(config, tokenizer)}
    drop_changed(temporary, about)
    made_from = _made_from(config, tokenizer)
    try:
        facts = Build(config, tokenizer, temporary, about, observe, claim).run()
        require_kept(claim)
        publish_folder(temporary, folder, {"made_from": made_from, **facts}, drop=UNFINISHED)
    except BaseException as error:
        if not claim.is_kept():  # what is there is another process's
            if isinstance(error, OSError):  # as it has moved it
                raise ClaimLost from None
            raise
        local = all(source.create().is_local() for source in config.corpus)
        # text that cannot be used stays so; what a network, a disk or a signal ended can go on
        unusable = isinstance(error, DataError) and not isinstance(error, ReadError) and local
        if unusable or not (temporary / STATE).is_file():
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    left_out = facts["near_duplicates"], facts["near_duplicate_parts"]
    without = [f"{facts['empty']} without text skipped"] if facts["empty"] else []
    without += [f"{counted(left_out[0], 'near-duplicate')} of what is held out left out"] if left_out[0] else []
    without += [f"{counted(left_out[1], 'part')} of long ones left out"] if left_out[1] else []
    counts = f"{facts['documents']} documents" + (f" ({', '.join(without)})" if without else "")
    log.info("prepared %s, %s training tokens in %s", counts, facts["train_tokens"], folder)
    for one in facts["sources"]:
        if "weight" in one:
            epochs = "" if one["epochs"] <= 1 else f", read {one['epochs']} times"
            share = f"{one['share']:.1%} of the training tokens (weight {one['weight']:g})"
            log.info("%s: %s%s", one["source"], share, epochs)
