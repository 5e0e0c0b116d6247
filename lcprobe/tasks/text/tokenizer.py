"""Tokenizer: any `tokenizers` JSON (byte-level BPE, SentencePiece-like BPE or Unigram), seen as pieces that join
exactly.

    piece(" falcon")             token ids as in the middle of a text, whatever the tokenizer does at a text's start
    opens_word[id]               this token begins a word after a space: a text may be cut before it
    same_after_round_trip(ids)   encode(decode(ids)) == ids, the test that every episode passes
    expressed(text)              the text as it gives it back: in lower case, for a lowercasing one

Two are shipped, byte-level BPE trained on public-domain American speeches (data/make_tokenizer.py): one with 4,096
entries, and one with 1,024 for models so small that a larger head would cost more than their layers. Digits stay
single.
"""

import json
import os
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
import tokenizers

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.files import digest_bytes
from lcprobe.tasks.text.hub_tokenizers import cached, fetch, is_hub_name
from lcprobe.tasks.text.rwkv_world import from_world_vocabulary

ANCHOR = "a"
LETTERS = "".join(chr(i) for i in range(33, 127)) + "éÅñﬁ１²"
"""Characters in which the normalisers that vocabularies have differ: case, accents, compatible forms."""
MIN_BATCH = 64
"""Texts up to this many are encoded one by one: a batch wakes other cores."""
JOINED_TEXTS = 512
"""Texts that are encoded as one text."""
PART_CHARS, SPACE = 1 << 12, re.compile(r"(?<=\S) (?=\S)")
"""Characters of a long text that are encoded at once, and where it may be split."""
MAX_VOCABULARY = 1 << 24
"""Largest id of a token, plus one."""
MAX_PIECES = 200_000
"""Pieces kept at most."""
AFTER_A_WORD = frozenset('!"#$%&()*+,-./:;<=>?@[]^`{|}~ Ġ▁Ċĉč\t\n\r')
SPACES = " Ġ▁"
"""A space, as vocabularies spell it."""
BLANKS = SPACES + "ĊĉčĀ\t\n\r"
CLOSES, OPENS, LONE, FILLED = 1, 2, 4, 8
"""Bits of a token: its last character is no white space; it is a space and something else; it is a single space; its
first character is no white space."""
ENDS_OF_WORDS = (
    " a", " Zeb", " 7", " 4071", " it.", " it,", " x;", " key:", " so)", ' so"', " its'", " co-", " 3f2c9a71-5b0e",
)  # fmt: skip
STARTS_OF_WORDS = (" a", " Zeb", " 7", " 4071", " (so", ' "so', " 'tis", " -co", " $5", " VAR")
"""Words that represent all others by how they end and begin."""
SHIPPED = {"shipped": "bpe4k.json", "shipped-1024": "bpe1k.json"}
"""Files of the shipped tokenizers in tasks/assets, by the name used in configs."""
BOS_NAMES = ("<|bos|>", "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>", "[CLS]")


NO_BOS = "none"
"""As `bos`: no token before texts, whatever the vocabulary has."""


class Tokenizer:
    """Text to ids and back. Adds no special tokens; `bos_id` is None where the vocabulary has no such token."""

    def __init__(self, json_text: str, bos: str | None = None, name: str = ""):
        """json_text: the content of a tokenizer.json. bos: the name of its BOS token; null: the first of the usual
        ones. name: for messages; empty: the first digits of its digest.

        Raises ConfigError for text that is no tokenizer and for a `bos` that it does not have.
        """
        try:
            self._inner = tokenizers.Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises bare Exception
            raise ConfigError("data.tokenizer", "an unreadable file", f"a tokenizer.json ({error})") from None
        self._inner.no_truncation()
        self._inner.no_padding()
        self.json_text = json_text
        self.digest = digest_bytes(json_text.encode())
        self.name = name or self.digest[:12]
        self.vocab_size: int = 1 + max(self._inner.get_vocab(with_added_tokens=True).values(), default=-1)
        """One more than the largest id: ids may have gaps, and a count of the tokens would be no bound."""
        if not 0 < self.vocab_size <= MAX_VOCABULARY:
            raise ConfigError("data.tokenizer", f"ids up to {self.vocab_size - 1}", f"1 .. {MAX_VOCABULARY} ids")
        names = list(BOS_NAMES) if bos is None else [] if bos == NO_BOS else [bos]
        ids = [self._inner.token_to_id(name) for name in names]
        if names == [bos] and ids[0] is None:
            raise ConfigError("data.bos", bos, "a token of this tokenizer")
        self.bos_id: int | None = next((i for i in ids if i is not None), None)
        usual = (self._inner.token_to_id(name) for name in BOS_NAMES)
        own_bos = self.bos_id != next((i for i in usual if i is not None), None)
        self.identity = digest_bytes(self.digest.encode(), str(self.bos_id).encode()) if own_bos else self.digest
        """What tells two tokenizers apart: the digest of the file, and of its BOS where that is not the usual one."""
        self._anchor = self._ids(ANCHOR)
        self._anchor_chars = len(self._inner.decode(self._anchor))
        self._pieces: dict[str, np.ndarray] = {}
        self._fused: dict[str, bool] = {}
        self.seen_words: set[bytes] = set()
        """Ids of words that were encoded again and stayed the same: written by `round_trips`."""

    def encode(self, text: str) -> np.ndarray:
        """Text -> (n,) int32, encoded alone."""
        return np.array(self._ids(text), dtype=np.int32)

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """Texts -> ids of each, on all cores."""
        return [
            np.array(e.ids, dtype=np.int32) for e in self._inner.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def encode_parts(self, parts: Sequence[str], after_word: Sequence[bool]) -> list[np.ndarray]:
        """Texts -> ids of each, on all cores. after_word: whether a part, which then begins with a space, is encoded
        as after a word."""
        anchored = [after and part[:1] == " " for part, after in zip(parts, after_word, strict=True)]
        texts = [ANCHOR + part if after else part for part, after in zip(parts, anchored, strict=True)]
        n, encoded = len(self._anchor), self.encode_batch(texts)
        return [ids[n:] if after else ids for ids, after in zip(encoded, anchored, strict=True)]

    def encode_with_offsets(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Text -> ids (n,) int32 and the character where each token starts (n,) int64.

        Where the ids of a text are those of its words, a long one is encoded in parts, at half the cost per token.
        """
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        done, anchor, n = 0, "", 0
        while True:
            space = SPACE.search(text, done + PART_CHARS) if self.splits_at_spaces else None
            end = space.start() if space else len(text)
            encoding = self._inner.encode(anchor + text[done:end], add_special_tokens=False)
            starts = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
            parts.append((np.array(encoding.ids[n:], dtype=np.int32), starts[n:] + (done - len(anchor))))
            if space is None:
                break
            done, anchor, n = end, ANCHOR, len(self._anchor)
        return np.concatenate([part for part, _ in parts]), np.concatenate([starts for _, starts in parts])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """(n,) -> text, special tokens included as written."""
        return self._inner.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=False)

    def text_of(self, ids: Sequence[int] | np.ndarray) -> str:
        """(n,) -> text as in the middle of a longer text: a space at its start is kept, which `decode` of some
        tokenizers drops, and none is added, which others do."""
        whole = self._inner.decode([*self._anchor, *np.asarray(ids, np.int64).tolist()], skip_special_tokens=False)
        return whole[self._anchor_chars :]

    @cached_property
    def folds(self) -> bool:
        """Whether the tokenizer changes letters before it encodes them, such as to lower case."""
        return self._normalised(LETTERS) != LETTERS

    def expressed(self, text: str) -> str:
        """The text that the tokenizer can express: in lower case, without accents, ... where it folds letters."""
        return self._normalised(text) if self.folds else text

    def _normalised(self, text: str) -> str:
        """What the tokenizer makes of a text before it encodes it, but for its own way with spaces."""
        normalizer = self._inner.normalizer
        if normalizer is None:
            return text
        changed = normalizer.normalize_str(text).replace("▁", " ")
        return changed[1:] if changed[:1] == " " and text[:1] != " " else changed

    def piece(self, text: str) -> np.ndarray:
        """Ids of `text` after a word, as in the middle of a longer text. Cached.

        Raises EpisodeError where this tokenizer would merge across the joint.
        """
        known = self._pieces.get(text)
        return self.pieces([text])[0] if known is None else known

    def pieces(self, texts: Sequence[str]) -> list[np.ndarray]:
        """`piece` of each text, the new ones encoded together."""
        known = self._pieces
        if len(known) > MAX_PIECES:
            known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            ids, sizes = self.joined_pieces(new)
            ids.setflags(write=False)
            ends = np.cumsum(sizes).tolist()
            known |= {text: ids[a:b] for text, a, b in zip(new, [0, *ends], ends, strict=False)}
        return [known[text] for text in texts]

    def joined_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The concatenated pieces of texts, (n,) int32, and the tokens of each; not cached. Raises as `piece`
        does."""
        joined = self._encoded_as_one(texts) if len(texts) > 1 and self.splits_at_spaces else None
        if joined is not None:
            return joined
        n, alone = len(self._anchor), [ANCHOR + text for text in texts]
        encoded = self.encode_batch(alone) if len(texts) > MIN_BATCH else [self.encode(text) for text in alone]
        for text, ids in zip(texts, encoded, strict=True):
            if ids[:n].tolist() != self._anchor or len(ids) == n:
                raise EpisodeError(
                    "data.tokenizer", f"one that merges {text!r} with what precedes it", "another format"
                )
        return np.concatenate([ids[n:] for ids in encoded]), np.array([len(ids) - n for ids in encoded])

    def _encoded_as_one(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """`joined_pieces` of texts of words with a space before each; None for others, and if the ids do not reveal
        the spaces.

        A call costs several times the encoding of a few words, so many texts are encoded as one and cut where their
        words begin.
        """
        wholes = ["".join(texts[i : i + JOINED_TEXTS]) for i in range(0, len(texts), JOINED_TEXTS)]
        if any(whole != " " + " ".join(whole.split()) for whole in wholes) or any(text[:1] != " " for text in texts):
            return None
        alone = [ANCHOR + whole for whole in wholes]
        n, encoded = len(self._anchor), [self.encode(alone[0])] if len(alone) == 1 else self.encode_batch(alone)
        if any(ids[:n].tolist() != self._anchor for ids in encoded):
            return None
        ids = np.concatenate([ids[n:] for ids in encoded])
        begins, words = np.flatnonzero(self._holds_space[ids]), np.array([text.count(" ") for text in texts])
        if len(begins) != words.sum() or begins[0] != 0:
            return None
        return ids, np.diff(begins[np.cumsum(words) - words], append=len(ids))

    def fuses(self, mark: str) -> bool:
        """Whether some token contains a letter or digit followed by this punctuation mark."""
        if mark not in self._fused:
            self._fused[mark] = any(
                mark[0] in name[1:] and name[name.index(mark[0], 1) - 1].isalnum() for name in self._names
            )
        return self._fused[mark]

    def keeps_apart(self, string: str, mark: str) -> bool:
        """Whether the ids of a word followed by a punctuation mark are those of the word, then those of the mark."""
        if not self.fuses(mark):
            return True
        whole, word = self.piece(" " + string + mark), self.piece(" " + string)
        return np.array_equal(whole[: len(word)], word) and np.array_equal(whole[len(word) :], self.piece(mark))

    def same_after_round_trip(self, ids: np.ndarray) -> bool:
        """Whether encode(decode(ids)) == ids, BOS apart. A window must begin at a word."""
        body = ids[1:] if self.bos_id is not None and len(ids) and ids[0] == self.bos_id else ids
        return self._ids(self.decode(body)) == body.tolist()

    def added_in(self, text: str) -> frozenset[int]:
        """Ids of the tokens in a text that were added to the vocabulary, special ones most often: the text is divided
        at them before anything else."""
        added = self._inner.get_added_tokens_decoder()
        return frozenset(number for number, token in added.items() if token.content and token.content in text)

    def same_after_mark(self, mark: int, ids: np.ndarray) -> bool:
        """`same_after_round_trip` of ids that follow a special token, after which some tokenizers begin anew, and
        others as in the middle of a text."""
        return self.same_after_round_trip(ids) or self.same_after_round_trip(np.array([mark, *ids.tolist()]))

    def lost(self, text: str) -> list[str]:
        """The characters of a text, except white space, that the tokenizer does not give back as it expresses
        them."""
        return [c for c in sorted(set(text)) if not c.isspace() and not self._gives_back(c)]

    def _gives_back(self, char: str) -> bool:
        text = f"a{char}a"
        expressed = self.expressed(text)
        return len(expressed) >= len(text) and self.decode(self.encode(text)).lstrip(" ") == expressed

    @cached_property
    def opens_word(self) -> np.ndarray:
        """(vocab_size,) bool: a space followed by another character."""
        return np.array([_opens_word(name) for name in self._names], dtype=bool)

    @cached_property
    def ends_word(self) -> np.ndarray:
        """(vocab_size,) bool: the last character is an ASCII letter or digit."""
        return np.array([name[-1:].isascii() and name[-1:].isalnum() for name in self._names], dtype=bool)

    @cached_property
    def leaves_word(self) -> np.ndarray:
        """(vocab_size,) bool: the first character is a space or ASCII punctuation, so that the word before it is
        over.
        """
        return np.array([name[:1] in AFTER_A_WORD and not name.startswith("<0x") for name in self._names], dtype=bool)

    @cached_property
    def is_blank(self) -> np.ndarray:
        """(vocab_size,) bool: white space only."""
        return np.array([not name.strip(" ▁ĠĊĉčĀ\t\n\r") for name in self._names], dtype=bool)

    @cached_property
    def edges(self) -> bytes:
        """(vocab_size,) CLOSES, OPENS, LONE and FILLED of each token, as bits."""
        return bytes(_edges(name) for name in self._names)

    @cached_property
    def _holds_space(self) -> np.ndarray:
        """(vocab_size,) bool: the first character is a space, of a word or alone."""
        return np.frombuffer(self.edges, dtype=np.uint8) & (OPENS | LONE) > 0

    @cached_property
    def splits_at_spaces(self) -> bool:
        """Whether the ids of a text are those of its words: no token reaches over a space into a word, and words of
        every kind keep their ids next to words of every other kind.
        """
        if any(c in SPACES and name[i] not in BLANKS for name in self._names for i, c in enumerate(name[1:])):
            return False
        pairs = [a + b for a in ENDS_OF_WORDS for b in STARTS_OF_WORDS]
        try:
            apart = [self.piece(part) for a in ENDS_OF_WORDS for b in STARTS_OF_WORDS for part in (a, b)]
        except EpisodeError:
            return False
        return self._ids(ANCHOR + "".join(pairs)) == [*self._anchor, *np.concatenate(apart).tolist()]

    def no_word_starts(self) -> str | None:
        """What kind of tokenizer this is, if no token is a space and what follows it, so that texts cannot be cut
        between words; None for all others."""
        if self.opens_word.any():
            return None
        model = json.loads(self.json_text)["model"]
        kind, suffix = model.get("type"), model.get("end_of_word_suffix")
        if kind in ("WordPiece", "WordLevel"):
            return f"a {kind} tokenizer, which drops spaces"
        if suffix:
            return f"a tokenizer like CLIP's, which marks the ends of words ({suffix}) and drops spaces"
        longest = max((len(name) for name in self._names if not name.startswith(("<", "["))), default=0)
        return (
            "a tokenizer of single characters" if longest <= 1 else "a tokenizer that keeps spaces apart from words"
        )

    @cached_property
    def _names(self) -> list[str]:
        return [self._inner.id_to_token(i) or "" for i in range(self.vocab_size)]

    def _ids(self, text: str) -> list[int]:
        return self._inner.encode(text, add_special_tokens=False).ids


def _opens_word(name: str) -> bool:
    return len(name) > 1 and name[0] in SPACES and name[1] not in BLANKS


def _edges(name: str) -> int:
    closes, filled = name[-1:] not in BLANKS, name[:1] not in BLANKS  # an empty name has neither
    return CLOSES * closes | OPENS * _opens_word(name) | LONE * (len(name) == 1 and name in SPACES) | FILLED * filled


@lru_cache(maxsize=8)
def load_tokenizer(source: str = "shipped", bos: str | None = None) -> Tokenizer:
    """`shipped`, `shipped-1024`, a tokenizer.json, a folder with one, or (online) a Hugging Face name.

    Raises ConfigError when there is none.
    """
    if source in SHIPPED:
        file = resources.files("lcprobe.tasks") / "assets" / SHIPPED[source]
        return Tokenizer(file.read_text(encoding="utf-8"), bos, source)
    path = Path(source)
    if os.path.isdir(source):  # "" is no folder
        converted = None if (path / "tokenizer.json").is_file() else _converted(path)
        if converted is not None:
            return Tokenizer(converted, bos, source)
        path = path / "tokenizer.json"
    if os.path.isfile(path):  # unlike Path's, False for a name that no file can have
        return Tokenizer(path.read_text(encoding="utf-8"), bos, source)
    if is_hub_name(source):
        return Tokenizer(fetch(source), bos, source)
    allowed = f"{', '.join(SHIPPED)}, a tokenizer.json, a folder with one, or a reachable hub name"
    raise ConfigError("data.tokenizer", source, allowed)


def tokenizer_here(source: str, bos: str | None = None) -> Tokenizer | None:
    """`load_tokenizer` without network: None for a name on the hub that was not fetched before."""
    if source in SHIPPED or os.path.exists(source) or not is_hub_name(source) or cached(source) is not None:
        return load_tokenizer(source, bos)
    return None


def _converted(folder: Path) -> str | None:
    """tokenizer.json of a folder that has the World vocabulary of RWKV, or a SentencePiece model; None of another."""
    world = sorted(folder.glob("rwkv_vocab_*.txt"))
    if world:
        return from_world_vocabulary(world[-1])
    return _from_sentencepiece(folder) if (folder / "tokenizer.model").is_file() else None


def _from_sentencepiece(folder: Path) -> str:
    """tokenizer.json of a folder that has a SentencePiece model alone. Raises ConfigError where transformers, which
    converts it, cannot."""
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True).backend_tokenizer.to_str()
    except Exception as error:  # missing packages, and whatever the library raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
        allowed = f"a tokenizer.json, or pip install 'lcprobe[hf]' to convert tokenizer.model ({reason})"
        raise ConfigError("data.tokenizer", str(folder), allowed) from None


@lru_cache(maxsize=8)
def read_words(name: str) -> list[str]:
    """A shipped word list: `nouns`, `adjectives`, `fillers`, `names`, `persons`, `surnames` or `places`.

    No noun, adjective or place contains another.
    """
    return (resources.files("lcprobe.tasks") / "assets" / f"{name}.txt").read_text(encoding="utf-8").split()
