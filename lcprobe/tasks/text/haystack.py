"""Haystacks: pre-tokenised text from which exactly n tokens are cut at word boundaries, and where a string occurs in it.

    corpus    held-out documents, a random offset a sample
    noise     five short sentences, repeated (RULER's noise haystack, arXiv 2404.06654)
    words     common words in random order
    needles   lines that look like the needles, with other keys and values (built by the task itself)
    python | json | csv | markdown | logs    documents of other kinds (document_kinds.py)

A stream is circular, so that any length can be served; an episode records how often it went round.
"""

import re
from bisect import bisect_left
from functools import cached_property

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.files import digest_bytes
from lcprobe.seeds import Stream
from lcprobe.tasks.names import CONTAINERS, TEXTS
from lcprobe.tasks.text.document_kinds import container_text
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

MAX_SHIFT = 1536
"""Tokens after the drawn offset within which a window's both ends must fall on word boundaries."""
NOISE = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
N_WORDS = 60_000
YES = b"\1"


class TokenStream:
    """A circular text with its tokens. `cuts[i]`: the text may be cut before token i."""

    def __init__(self, name: str, text: str, ids: np.ndarray, offsets: np.ndarray, tokenizer: Tokenizer):
        """text, with ids (n,) and the character at which each token starts (n,); trimmed to begin and end at words.

        Raises EpisodeError when the text has no two word boundaries, and for a tokenizer that cannot tell any.
        """
        opens = tokenizer.opens_word[ids] & ~np.concatenate([[False], tokenizer.is_blank[ids[:-1]]])
        where = np.flatnonzero(opens)
        if not tokenizer.opens_word.any():
            allowed = "one with tokens that hold a space and what follows it: texts are cut there"
            raise EpisodeError("data.tokenizer", "a tokenizer of single characters", allowed)
        if len(where) < 2:
            raise EpisodeError(f"haystack {name}", f"{len(ids)} tokens", "a text of at least two words")
        lo, hi = int(where[0]), int(where[-1])
        self.name = name
        self.ids, self.cuts = ids[lo:hi], opens[lo:hi]
        self._ends = self.cuts | (tokenizer.leaves_word[self.ids] & tokenizer.ends_word[np.roll(self.ids, 1)])
        self._first, self._offsets = int(offsets[lo]), offsets[lo : hi + 1] - offsets[lo]
        self.text = text[int(offsets[lo]) : int(offsets[hi])]
        # for scalar look-ups, which bytes answer in a fraction of numpy's time; twice round, so that no search has to wrap
        self._cut_marks, self._end_marks = self.cuts.tobytes() * 2, self._ends.tobytes()
        self._next_found: dict[str, list[int]] = {}

    @classmethod
    def from_text(cls, name: str, text: str, tokenizer: Tokenizer) -> "TokenStream":
        """Tokenise a text once."""
        return cls(name, text, *tokenizer.encode_with_offsets(text), tokenizer)

    @cached_property
    def digest(self) -> str:
        """Of the tokens that windows are cut from."""
        return digest_bytes(self.ids.astype("<i4").tobytes())

    def __len__(self) -> int:
        return len(self.ids)

    def window(self, offset: int, n: int) -> int:
        """The first start at or after `offset` from which n tokens end at a word boundary too.

        Where words are rare, as in code, a window may also end at a word's last letter, before punctuation: what follows it
        begins with a space. Raises EpisodeError when there is none within MAX_SHIFT tokens.
        """
        size, offset = len(self), offset % len(self)
        for reach, ends in ((32, self._cut_marks), (MAX_SHIFT, self._end_marks)):
            last = offset + min(reach, size)
            start = self._cut_marks.find(YES, offset, last)
            while start >= 0:
                if ends[(start + n) % size]:
                    return start % size
                start = self._cut_marks.find(YES, start + 1, last)
        raise EpisodeError(f"haystack {self.name}", f"{n} tokens", "a piece of text that begins and ends at words")

    def take(self, start: int, n: int) -> np.ndarray:
        """n tokens from `start`, going round at the end."""
        if start + n <= len(self):
            return self.ids[start : start + n]
        start %= len(self)
        rounds, rest = divmod(start + n, len(self))
        return np.concatenate([self.ids[start:], *[self.ids] * (rounds - 1), self.ids[:rest]])

    def cut_near(self, start: int, n: int, at: int) -> int:
        """The word boundary nearest to `at` inside the window of n tokens: 0 .. n, both ends included."""
        if at <= 0 or at >= n:
            return min(max(at, 0), n)
        size, here = len(self), (start + at) % len(self)  # there are cuts, so that both searches find one
        before = at - (here + size - self._cut_marks.rfind(YES, here, here + size + 1))
        after = at + self._cut_marks.find(YES, here) - here
        if before >= 0 and (at - before <= after - at or after > n):
            return before
        return after if after <= n else n

    def text_at(self, char: int) -> int:
        """Where in `text`, which is trimmed, a character of the given text stands."""
        return char - self._first

    def token_at(self, char: int) -> int:
        """The token that holds a character of the text that the stream was made from."""
        return int(np.searchsorted(self._offsets, self.text_at(char), side="right")) - 1

    def cut_at(self, char: int) -> int | None:
        """The token that begins at a character of that text; None where the text may not be cut."""
        token = self.token_at(char)
        exact = 0 <= token < len(self) and self._offsets[token] == self.text_at(char) and self.cuts[token]
        return token if exact else None

    def free_run(self, string: str, offset: int) -> int:
        """How many tokens from `offset` on do not contain `string`; the stream's length when it does not occur."""
        found = self._next_found.get(string)
        if found is None:
            if len(self._next_found) > 50_000:
                self._next_found.clear()
            found = self._next_found[string] = self._occurrences(string)
        if not found:
            return len(self)
        i = bisect_left(found, offset)  # on a list: a tenth of numpy's cost for the few occurrences there are
        return found[i] - offset if i < len(found) else found[0] + len(self) - offset

    def _occurrences(self, string: str) -> list[int]:
        """Token indices at which a string occurs, sorted. Its characters decide which part of the text can hold it."""
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
        found, i = [], text.find(string) if len(string) <= longest else -1
        while i >= 0:
            found.append(i)
            i = text.find(string, i + 1)
        if not found:
            return []
        chars = np.array(found, dtype=np.int64)
        if at is not None:
            chars = at[np.searchsorted(at[:, 0], chars, side="right") - 1, 1]
        # one token early: a string may begin inside a token
        tokens = np.searchsorted(self._offsets, chars, side="right") - 1
        return np.unique(tokens.clip(0) % len(self)).tolist()

    def _runs(self, pattern: str) -> tuple[str, np.ndarray, int]:
        """The runs of a pattern joined by spaces, (place there, place in the whole text) of each, and the size of the longest."""
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
        """Every word once: a fifth of the text. What is in none of them is nowhere, since the text begins with a space."""
        return "\n".join(dict.fromkeys(self.text.split()))

    @cached_property
    def _run_cache(self) -> dict[str, tuple[str, np.ndarray, int]]:
        return {}


class Materials:
    """What tasks are made of: a tokenizer and its haystack streams, each built when first asked for."""

    def __init__(self, tokenizer: Tokenizer, corpus: TokenStream | None = None):
        self.tokenizer, self._streams = tokenizer, {} if corpus is None else {"corpus": corpus}

    def stream(self, name: str) -> TokenStream:
        """The stream of a haystack kind. Raises EpisodeError for `corpus` without one and for text that the tokenizer changes."""
        if name not in self._streams:
            if name == "noise":
                text = NOISE * 40
            elif name == "words":
                words, draw = read_words("fillers"), Stream("haystack", "words")
                text = "".join(" " + words[i] for i in draw.integers(len(words), N_WORDS))
            elif name in CONTAINERS:
                text = container_text(name)
                lost = self.tokenizer.lost(text)
                if lost:
                    raise EpisodeError(
                        f"haystack {name}", f"a tokenizer without {lost[0]!r}", "one that gives back its text"
                    )
            else:
                others = (*(t for t in TEXTS if t != "corpus"), *CONTAINERS, "needles")
                raise EpisodeError("haystack", name, " | ".join(others) + " (no corpus is loaded)")
            self._streams[name] = TokenStream.from_text(name, text, self.tokenizer)
        return self._streams[name]
