"""Haystacks: pre-tokenised text from which exactly n tokens are cut at word boundaries, with an index of where
strings occur.

    corpus    held-out documents, from a random offset per sample
    noise     five short sentences, repeated (RULER's noise haystack, arXiv 2404.06654)
    words     common words in random order
    needles   lines that look like the needles, with other keys and values (built by the task)
    python | json | csv | markdown | logs    documents of other kinds (document_kinds.py)

A stream is circular, so that any length can be cut from it; an episode records how often it went round. Training and
probing cut from different streams, but of noise, which is the same five sentences for everyone.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from lcprobe.errors import EpisodeError, listed
from lcprobe.files import digest_bytes
from lcprobe.seeds import Stream
from lcprobe.tasks.names import DOCUMENTS, TEXTS, Split
from lcprobe.tasks.text.document_kinds import document_text
from lcprobe.tasks.text.templates import NO_TEMPLATE, Frame, PromptTemplate, frame_of
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

MAX_SHIFT = 1536
"""Tokens after the drawn offset within which both ends of a window must fall on word boundaries."""
NOISE = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
N_WORDS = 60_000
"""Words of the haystack `words`."""
MAX_KNOWN = 50_000
"""Strings whose occurrences are kept."""
LEAST_CUTS = 2
"""Word boundaries without which a text cannot be cut."""
IS_CUT = b"\1"


@dataclass(frozen=True)
class Occurrences:
    """Where some strings occur in a stream of `size` tokens. numbers: (n,) of those that do, ascending; first: (n,)
    token of the first occurrence of each; places: (m + 1,) rank of the string x size + token, of all, ascending, and
    what is above them all.
    """

    numbers: np.ndarray
    first: np.ndarray
    places: np.ndarray
    size: int

    def free_runs(self, offset: int) -> np.ndarray:
        """(n,) tokens from `offset` to the next occurrence of each, as `TokenStream.free_run` gives them."""
        ranks = np.arange(len(self.numbers)) * self.size
        tokens = self.places[np.searchsorted(self.places, ranks + offset)] - ranks
        # of another string where this one comes again only after the stream's end
        return np.where(tokens < self.size, tokens, self.first + self.size) - offset


class TokenStream:
    """A circular text with its tokens. `cuts[i]`: the text may be cut before token i."""

    def __init__(self, name: str, text: str, ids: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer):
        """text: as the tokenizer expresses it, with ids (n,) and the character at which each token starts (n,); it is
        trimmed to begin and end at words.

        Raises EpisodeError when the text has fewer than two word boundaries, and for a tokenizer that reveals none.
        """
        require_word_starts(tokenizer)
        opens = tokenizer.opens_word[ids] & ~np.concatenate([[False], tokenizer.is_blank[ids[:-1]]])
        starts = np.flatnonzero(opens)
        if len(starts) < LEAST_CUTS:
            given = f"{len(ids)} tokens of which {len(starts)} begin a word after a space"
            allowed = "a text with spaces and a tokenizer that knows its words: texts are cut there"
            raise EpisodeError(f"haystack {name}", given, allowed)
        lo, hi = int(starts[0]), int(starts[-1])
        self.name = name
        self.ids, self.cuts = ids[lo:hi], opens[lo:hi]
        self._ends = self.cuts | (tokenizer.leaves_word[self.ids] & tokenizer.ends_word[np.roll(self.ids, 1)])
        self._offsets = offsets[lo : hi + 1] - offsets[lo]
        self.text = text[int(offsets[lo]) : int(offsets[hi])]
        # bytes, since scalar look-ups in them take a fraction of numpy's time; twice, so that no search has to wrap
        # around
        self._cut_marks, self._end_marks = self.cuts.tobytes() * 2, self._ends.tobytes()
        self._known: dict[str, list[int]] = {}
        self._expressed = tokenizer.expressed

    @classmethod
    def from_text(cls, name: str, text: str, tokenizer: Tokenizer) -> "TokenStream":
        """Tokenise a text once, as the tokenizer expresses it."""
        text = tokenizer.expressed(text)
        return cls(name, text, *tokenizer.encode_with_offsets(text), tokenizer)

    @cached_property
    def digest(self) -> str:
        """Digest of the tokens that windows are cut from."""
        return digest_bytes(self.ids.astype("<i4").tobytes())

    def __len__(self) -> int:
        return len(self.ids)

    def window(self, offset: int, n: int) -> int:
        """The first start at or after `offset` from which n tokens end at a word boundary too.

        Where words are rare, as in code, a window may also end at a word's last letter, before punctuation: the piece
        after it begins with a space. Raises EpisodeError when there is no such start within MAX_SHIFT tokens.
        """
        size, offset = len(self), offset % len(self)
        for reach, ends in ((32, self._cut_marks), (MAX_SHIFT, self._end_marks)):
            last = offset + min(reach, size)
            start = self._cut_marks.find(IS_CUT, offset, last)
            while start >= 0:
                if ends[(start + n) % size]:
                    return start % size
                start = self._cut_marks.find(IS_CUT, start + 1, last)
        raise EpisodeError(f"haystack {self.name}", f"{n} tokens", "a piece of text that begins and ends at words")

    def take(self, start: int, n: int) -> np.ndarray:
        """n tokens from `start`, wrapping around at the end."""
        if start + n <= len(self):
            return self.ids[start : start + n]
        start %= len(self)
        rounds, rest = divmod(start + n, len(self))
        return np.concatenate([self.ids[start:], *[self.ids] * (rounds - 1), self.ids[:rest]])

    def cut_near(self, start: int, n: int, at: int) -> int:
        """The word boundary nearest to `at` inside the window of n tokens: 0 .. n, both ends included."""
        if at <= 0 or at >= n:
            return min(max(at, 0), n)
        size, here = len(self), (start + at) % len(self)  # every stream has cuts, so both searches succeed
        before = at - (here + size - self._cut_marks.rfind(IS_CUT, here, here + size + 1))
        after = at + self._cut_marks.find(IS_CUT, here) - here
        if before >= 0 and (at - before <= after - at or after > n):
            return before
        return after if after <= n else n

    def free_run(self, string: str, offset: int) -> int:
        """Tokens from `offset` to the next occurrence of `string`; the stream's length when it does not occur."""
        tokens = self._places(string)
        if not tokens:
            return len(self)
        i = bisect_left(tokens, offset)  # on a list: a tenth of numpy's cost for a few occurrences
        return tokens[i] - offset if i < len(tokens) else tokens[0] + len(self) - offset

    def count(self, string: str) -> int:
        """How many tokens an occurrence of `string` begins in."""
        return len(self._places(string))

    def occurrences(self, number: Mapping[str, int]) -> Occurrences:
        """Where strings without spaces, as the tokenizer expresses them, occur. number: of each."""
        characters = re.escape("".join(sorted(set().union(*number))))
        runs = set(re.findall(f"[{characters}]+", self._words)) if number else set()
        sizes = sorted({len(string) for string in number})
        parts = (run[a : a + size] for run in runs for size in sizes for a in range(len(run) - size + 1))
        found = {number[part]: part for part in parts if part in number}
        places = {i: tokens for i, part in sorted(found.items()) if (tokens := self._occurrences(part))}
        together = [rank * len(self) + np.array(tokens) for rank, tokens in enumerate(places.values())]
        return Occurrences(
            numbers=np.array(list(places), dtype=np.int64),
            first=np.array([tokens[0] for tokens in places.values()], dtype=np.int64),
            places=np.concatenate([*together, [len(places) * len(self)]]).astype(np.int64),
            size=len(self),
        )

    def _places(self, string: str) -> list[int]:
        tokens = self._known.get(string)
        if tokens is None:
            if len(self._known) > MAX_KNOWN:
                self._known.clear()
            tokens = self._known[string] = self._occurrences(self._expressed(string))
        return tokens

    def _occurrences(self, string: str) -> list[int]:
        """Token indices at which a string occurs, sorted. Its characters determine the parts of the text that are
        searched.
        """
        if "-" in string:
            text, at, longest = self._runs(r"[0-9A-Za-z-]*-[0-9A-Za-z-]*")
        elif string.isdigit():
            text, at, longest = self._runs(r"\d+")
        elif any(c.isdigit() for c in string) and string.isalnum():
            text, at, longest = self._runs(r"[0-9A-Za-z]*\d[0-9A-Za-z]*")
        elif len(string.split()) == 1 and string not in self._words:
            return []
        else:
            text, at, longest = self.text + self.text[: len(string)], None, len(string)
        starts, i = [], text.find(string) if len(string) <= longest else -1
        while i >= 0:
            starts.append(i)
            i = text.find(string, i + 1)
        if not starts:
            return []
        chars = np.array(starts, dtype=np.int64)
        if at is not None:
            chars = at[np.searchsorted(at[:, 0], chars, side="right") - 1, 1]
        # one token early: a string may begin inside a token
        tokens = np.searchsorted(self._offsets, chars, side="right") - 1
        return np.unique(tokens.clip(0) % len(self)).tolist()

    def _runs(self, pattern: str) -> tuple[str, np.ndarray, int]:
        """The matches of a pattern joined by spaces, (place there, place in the whole text) of each, and the
        longest's length.
        """
        cache = self._run_cache
        if pattern not in cache:
            runs, at, length = [], [], 0
            for match in re.finditer(pattern, self.text):
                at.append((length, match.start()))
                runs.append(match.group())
                length += len(match.group()) + 1
            longest = max(map(len, runs), default=0)
            cache[pattern] = (" ".join(runs), np.array(at or [(0, 0)], dtype=np.int64), longest)
        return cache[pattern]

    @cached_property
    def _words(self) -> str:
        """Every word once: a fifth of the text. A string in none of them does not occur, since the text begins with a
        space.
        """
        return "\n".join(dict.fromkeys(self.text.split()))

    @cached_property
    def _run_cache(self) -> dict[str, tuple[str, np.ndarray, int]]:
        return {}


def require_word_starts(tokenizer: Tokenizer) -> None:
    """Raises EpisodeError for a tokenizer whose tokens do not show where words begin."""
    kind = tokenizer.no_word_starts()
    if kind is not None:
        allowed = "one with tokens of a space and what follows it: texts are cut there"
        raise EpisodeError("data.tokenizer", kind, allowed)


class Materials:
    """What tasks are built from: a tokenizer, a prompt template, and haystack streams, each built on first use."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        corpus: TokenStream | Callable[[], TokenStream] | None = None,
        template: PromptTemplate = NO_TEMPLATE,
    ):
        """corpus: held-out or training documents, for episodes of either split, or what reads them. template: around
        every prompt."""
        self.tokenizer, self._corpus, self._streams = tokenizer, corpus, dict[tuple[str, Split], TokenStream]()
        self.template = template

    def with_template(self, template: PromptTemplate) -> "Materials":
        """The same materials, each stream built once for both, with a template around every prompt."""
        if template == self.template:
            return self
        other = Materials(self.tokenizer, None if self._corpus is None else self._read_corpus, template)
        other._streams = self._streams
        return other

    def _read_corpus(self) -> TokenStream:
        assert self.corpus is not None, "with_template asks for it only where there is one"
        return self.corpus

    @cached_property
    def frame(self) -> Frame:
        """The template in tokens. Raises EpisodeError as `frame_of`."""
        return frame_of(self.template, self.tokenizer)

    @cached_property
    def corpus(self) -> TokenStream | None:
        """The stream of documents; None: there is none. Raises EpisodeError for text that cannot be cut."""
        return self._corpus() if callable(self._corpus) else self._corpus

    @cached_property
    def corpus_to_cut(self) -> TokenStream | None:
        """The stream of documents, for what goes without: None where there is none, or its text cannot be cut."""
        try:
            return self.corpus
        except EpisodeError:
            return None

    def stream(self, name: str, split: Split = "probe") -> TokenStream:
        """The stream of a haystack that episodes of a split are cut from. Raises EpisodeError for `corpus` without
        one and for text that the tokenizer changes.
        """
        if name == "corpus" and self.corpus is not None:
            return self.corpus
        if (name, split) not in self._streams:
            self._streams[name, split] = _made_stream(name, split, self.tokenizer)
        return self._streams[name, split]


@lru_cache(maxsize=16)
def _made_stream(name: str, split: Split, tokenizer: Tokenizer) -> TokenStream:
    """The stream of a haystack that is the same whatever the corpus is. Kept for other materials of this process: a
    million characters take about a second."""
    return TokenStream.from_text(name, _made_text(name, split, tokenizer), tokenizer)


def _made_text(name: str, split: Split, tokenizer: Tokenizer) -> str:
    if name == "noise":
        return NOISE * 40
    if name == "words":
        words, draw = read_words("fillers"), Stream("haystack", "words", split)
        return "".join(" " + words[i] for i in draw.integers(len(words), N_WORDS))
    if name not in DOCUMENTS:
        others = (*(t for t in TEXTS if t != "corpus"), *DOCUMENTS, "needles")
        raise EpisodeError("haystack", name, listed(others) + " (no corpus is loaded)")
    text = document_text(name, split)
    lost = tokenizer.lost(text)
    if lost:
        raise EpisodeError(f"haystack {name}", f"a tokenizer without {lost[0]!r}", "one that gives back its text")
    return text
