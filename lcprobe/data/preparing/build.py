"""Write a prepared corpus into a temporary folder: from the beginning, or from where a killed process was.

The bytes are a function of texts and settings: not of the number of processes, and not of where the work was
interrupted.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader
from lcprobe.data.documents import pieces_of
from lcprobe.data.marks import mark_from_json
from lcprobe.data.near_duplicates import HeldOutText, NearDuplicates
from lcprobe.data.preparing.chunks import chunks_of
from lcprobe.data.preparing.encoding import dtype_of, ids_are_those_of_words
from lcprobe.data.preparing.held_out import HeldOut, held_out_text
from lcprobe.data.preparing.pool import encoded
from lcprobe.data.preparing.progress import Pace, PrepareObserver
from lcprobe.data.preparing.worker import EncoderSettings
from lcprobe.data.preparing.writing import HAYSTACKS, STARTS, STATE, Writer, Written
from lcprobe.data.splits import split_documents
from lcprobe.errors import DataError
from lcprobe.files import digest_source, read_json
from lcprobe.locks import Claim, require_kept
from lcprobe.tasks.text.tokenizer import Tokenizer

CHECKPOINT_SECONDS = 10.0
"""Between two places that a killed preparation can go on from."""
INDEX = "held_out.npz"
UNFINISHED = (STATE, STARTS, INDEX, *HAYSTACKS.values())
"""Files that a finished folder does not have."""
SAMPLE_CHARS = 1 << 17
"""Characters at the beginning of the corpus in which encoding word by word is compared with encoding as a whole."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Build:
    """The work of preparing one corpus. about: what state.json says of it besides; claim: on the folder."""

    config: DataConfig
    tokenizer: Tokenizer
    folder: Path
    about: Mapping[str, Any]
    observe: PrepareObserver
    claim: Claim

    def run(self) -> dict[str, Any]:
        """Write shards, starts and haystacks, and return the facts of the manifest. What the folder has of the same
        texts is kept.

        Raises DataError for text that cannot be read, and for too little of it; ClaimLost where another process has
        taken the folder over, as this one was away for too long.
        """
        config, reader = self.config, Reader(self.config)
        facts = {"code": digest_source("lcprobe.data", "lcprobe.tasks"), "versions": reader.versions(), **self.about}
        state = self._state(facts)
        held_out = None
        if config.near_duplicates is not None:
            held_out, of_each = self._held_out(reader)
            if of_each:
                reader.count_kept(held_out)
        share = config.near_duplicates or 1.0
        n = len(config.corpus)
        written = Written(**state["written"]) if state else Written([0] * n, [0] * n, [0] * n)
        if state:
            log.info("going on after %s documents, %s training tokens", written.documents, written.n_tokens)
        writer = Writer(
            self.folder,
            self.tokenizer,
            written,
            max_tokens=config.max_tokens,
            haystack_chars=config.haystack_chars,
            near_duplicates=None if held_out is None else NearDuplicates(held_out, share),
        )
        try:
            if not written.stopped:
                by_words = ids_are_those_of_words(self.tokenizer, self._sample(reader))
                settings = EncoderSettings(self.tokenizer.json_text, by_words, held_out, share)
                self._encode(reader, state, writer, settings, facts)
            self._require_both(written)
            require_kept(self.claim)
            writer.finish()
        finally:
            writer.close()
        return {"code": facts["code"], **self._facts(written, facts["versions"])}

    def _state(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Where a killed process was, in a folder that has nothing else; {} for the beginning."""
        path, state = self.folder / STATE, {}
        if path.is_file():
            state = read_json(path)
            changed = [key for key in facts if state.get(key) != facts[key]]
            if changed:
                what = "the program" if changed == ["code"] else "a source"
                log.info("%s has changed since preparing began: it starts over", what)
                state = {}
        if not state:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
        for file in self.folder.iterdir():
            if file.name not in UNFINISHED and not file.name.startswith("tokens-"):
                file.unlink()
        return state

    def _held_out(self, reader: Reader) -> HeldOut:
        """The sequences of words that are held out for probing, in a file for whoever goes on."""
        path = self.folder / INDEX
        if path.is_file():
            with np.load(path) as kept:
                text = HeldOutText(kept["hashes"], kept["documents"], kept["sizes"])
                return HeldOut(text, bool(kept["of_each"]))
        pace = Pace(self.observe, "reading what is held out")
        found = held_out_text(
            self.config, reader, lambda chars, documents, share: pace.show(chars, documents, 0, share)
        )
        text, temporary = found.text, path.with_suffix(".tmp.npz")
        of_each = np.array(found.of_each)
        np.savez(temporary, hashes=text.hashes, documents=text.documents, sizes=text.sizes, of_each=of_each)
        os.replace(temporary, path)
        return found

    def _sample(self, reader: Reader) -> list[str]:
        found, chars = [], 0
        for read in reader.documents():
            found.append(next(pieces_of(read.document))[: SAMPLE_CHARS - chars])
            chars += len(found[-1])
            if chars >= SAMPLE_CHARS:
                break
        return found

    def _encode(
        self,
        reader: Reader,
        state: Mapping[str, Any],
        writer: Writer,
        settings: EncoderSettings,
        facts: dict[str, Any],
    ) -> None:
        """Encode and write what comes after a state."""
        config, written = self.config, writer.written
        documents = split_documents(config, mark_from_json(state["mark"]) if state else None, reader)
        at_spaces = self.tokenizer.splits_at_spaces
        chunks = chunks_of(documents, config.max_tokens, at_spaces, lambda: written.full, state.get("parts", 0))
        results = encoded(chunks, settings, config.workers or len(os.sched_getaffinity(0)))
        pace, chars, saved = Pace(self.observe, "preparing"), 0, time.monotonic()
        try:
            for chunk, result in results:
                if not chunk.pieces:
                    continue
                require_kept(self.claim)
                writer.take(chunk, result)
                chars += chunk.chars
                share = reader.share_read()
                if config.max_tokens is not None:
                    share = min(1.0, max(share or 0.0, written.n_tokens / config.max_tokens))
                pace.show(chars, written.documents, written.n_tokens, share)
                if time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    writer.checkpoint(chunk, facts)
                    saved = time.monotonic()
                if written.stopped:
                    return
        finally:
            results.close()

    def _require_both(self, written: Written) -> None:
        if written.texts["probe"] and written.starts:
            return
        corpus = " ".join(map(str, self.config.corpus))
        near = written.left_out
        why = f", of which {near} are near-duplicates of what is held out (data.near_duplicates)" if near else ""
        least = "at least 2, to train on and to hold out"
        raise DataError(f"{corpus}: {written.documents} documents{why}; allowed: {least}")

    def _facts(self, written: Written, versions: list[str]) -> dict[str, Any]:
        sources, total = [], max(written.n_tokens, 1)
        for number, source in enumerate(self.config.corpus):
            tokens = written.tokens[number]
            own = {"source": str(source), "documents": written.of_source[number], "tokens": tokens}
            weight = {} if source.config.weight is None else {"weight": source.config.weight}
            version = {"version": versions[number]} if versions[number] else {}
            sources.append({**own, **weight, "share": tokens / total, "epochs": written.epochs[number], **version})
        return {
            "corpus_digest": written.digest,
            "tokenizer_digest": self.tokenizer.digest,
            "vocab_size": self.tokenizer.vocab_size,
            "dtype": dtype_of(self.tokenizer),
            "documents": written.documents,
            "probe_documents": written.held_out,
            "empty": written.empty,
            "near_duplicates": written.left_out,
            "near_duplicate_parts": written.left_out_parts,
            "train_tokens": written.n_tokens,
            "sources": sources,
        }
