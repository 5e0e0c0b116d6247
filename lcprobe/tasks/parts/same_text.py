"""The same text in the tokens of another tokenizer: an episode is decoded and encoded again, and its spans are found
again by their characters.

The text is encoded as a whole, so the ids are what the other tokenizer makes of it. An answer must be exactly its own
tokens; needles and values may share a token with what is beside them, and then begin and end with that token.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.tasks.episode import Episode, Query
from lcprobe.tasks.parts.episode_text import without_bos
from lcprobe.tasks.text.round_trip import round_trips
from lcprobe.tasks.text.tokenizer import ANCHOR, Tokenizer


class NotSameText(EpisodeError):
    """A sample that a tokenizer cannot represent; another attempt at it may be different."""

    def __init__(self, reason: str):
        super().__init__("data.tokenizer", f"one that {reason}", "another format, or probe.equal_length=tokens")


def in_tokens_of(other: Tokenizer, episode: Episode, reference: Tokenizer) -> Episode:
    """The episode with the same characters in the tokens of another tokenizer, after its own BOS where it has one.

    realised_depth, rounds and the place and tokens of the haystack are those of the reference. Raises NotSameText
    where the characters or an answer are not given back exactly, or an answer does not begin and end with a token.
    """
    text = reference.text_of(without_bos(episode.ids, reference))
    source, target = _Encoded.of(text, reference), _Encoded.of(text, other)
    if not np.array_equal(source.ids, episode.ids):
        raise NotSameText("encodes a text in another way than its pieces")
    return replace(
        episode,
        ids=target.ids,
        queries=tuple(_query(query, source, target) for query in episode.queries),
        needles=tuple(
            (target.holding(source.char(start)), target.after(source.char(stop))) for start, stop in episode.needles
        ),
    )


@dataclass(frozen=True)
class _Encoded:
    """A text and its ids (n,), BOS included. starts: character at which each token after BOS starts, and the text's
    length."""

    text: str
    tokenizer: Tokenizer
    ids: np.ndarray
    starts: list[int]

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> "_Encoded":
        """A text as in the middle of a longer one. Raises NotSameText where the ids do not give it back."""
        anchor = tokenizer.encode(ANCHOR)
        ids, starts = tokenizer.encode_with_offsets(ANCHOR + text)
        body, n = ids[len(anchor) :], len(anchor)
        if not np.array_equal(ids[:n], anchor) or tokenizer.text_of(body) != text:
            raise NotSameText("changes the text")
        bos = np.array([] if tokenizer.bos_id is None else [tokenizer.bos_id], dtype=np.int32)
        return cls(text, tokenizer, np.concatenate([bos, body]), [*(starts[n:] - len(ANCHOR)).tolist(), len(text)])

    @property
    def bos(self) -> int:
        """Tokens before the text."""
        return len(self.ids) + 1 - len(self.starts)

    def char(self, token: int) -> int:
        """The character at which a token of `ids` starts."""
        return self.starts[max(token - self.bos, 0)]

    def holding(self, char: int) -> int:
        """The token that has a character."""
        return self.bos + max(bisect_right(self.starts, char, hi=len(self.starts) - 1) - 1, 0)

    def after(self, char: int) -> int:
        """The first token that starts at or after a character."""
        return self.bos + bisect_left(self.starts, char)

    def exactly(self, low: int, high: int) -> tuple[int, int]:
        """The tokens of the characters low .. high. Raises NotSameText where they are not whole tokens."""
        start, stop = self.after(low), self.after(high)
        if self.tokenizer.text_of(self.ids[start:stop]) != self.text[low:high]:
            raise NotSameText(f"does not begin and end a token with {self.text[low:high]!r}")
        return start, stop


def _query(query: Query, source: _Encoded, target: _Encoded) -> Query:
    """A question in the tokens of the target."""
    own = None
    if query.own is None:
        start, stop = target.exactly(source.char(query.start), source.char(query.stop))
        answer = target.ids[start:stop]
    else:
        own, end, first = _separate(query, query.own, source, target)
        start, stop, answer = end + first, end + len(own), own[first:]
    candidates = tuple(target.tokenizer.pieces([source.tokenizer.text_of(c) for c in query.candidates]))
    if not np.array_equal(candidates[0], answer):
        raise NotSameText(f"encodes {query.answer!r} in another way where it is the answer")
    needle = distance = None
    if query.needle is not None and query.distance is not None:
        needle = target.holding(source.char(query.needle))
        distance = start - target.after(source.char(query.start - query.distance))
    via = tuple(target.holding(source.char(at)) for at in query.via)
    return replace(
        query,
        start=start,
        stop=stop,
        own=own,
        candidates=candidates,
        needle=needle,
        distance=distance,
        via=via,
    )


def _separate(query: Query, own: np.ndarray, source: _Encoded, target: _Encoded) -> tuple[np.ndarray, int, int]:
    """The ids of a separate question with its answer, the token of the context that they follow, and where in them
    the answer begins."""
    base = query.stop - len(own)
    end = target.after(source.char(base))
    ask, answer = (source.tokenizer.text_of(part) for part in np.split(own, [query.start - base]))
    encoded = _Encoded.of(ask + answer, target.tokenizer)
    first, _ = encoded.exactly(len(ask), len(ask) + len(answer))
    ids = encoded.ids[encoded.bos :]
    whole = np.concatenate([target.ids[:end], ids])
    if target.char(end) != source.char(base) or not round_trips(whole, [end], target.tokenizer):
        raise NotSameText(f"merges {ask!r} with what precedes it")
    return ids, end, first - encoded.bos
