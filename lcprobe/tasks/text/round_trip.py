"""The round-trip check of an episode: its text, encoded again around every joint of its pieces, gives the same ids.

Where no token of a vocabulary reaches over a space into the next word (all tokenizers with a pre-tokenizer, and the
SentencePiece ones without), a text's ids are those of its words one after the other. Then only the words at a joint
can change, and a word once seen need not be encoded again: a few new words per sample instead of a window per joint.
Elsewhere windows are encoded.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from lcprobe.tasks.text.tokenizer import CLOSES, FILLED, LONE, OPENS, Tokenizer

MAX_WHOLE = 256
"""Sequences of up to this many tokens are encoded again as a whole."""
MAX_SEEN_WORDS = 200_000
"""Words kept at most."""

STARTS = OPENS | LONE


def round_trips(
    ids: np.ndarray, joints: list[int], tokenizer: Tokenizer, marks: frozenset[int] = frozenset()
) -> bool:
    """Whether re-encoding the text around each joint gives the same ids (n,); short sequences are checked whole.

    marks: special tokens in `ids`, with which nothing merges: what is between them is checked part by part.
    """
    first = 1 if tokenizer.bos_id is not None else 0
    if not marks:
        return _part_round_trips(ids, joints, tokenizer, first, tokenizer.same_after_round_trip)
    at = [i for i in np.flatnonzero(np.isin(ids, list(marks))).tolist() if i >= first]
    for low, high in zip([0, *(i + 1 for i in at)], [*at, len(ids)], strict=True):
        inside = [joint - low for joint in joints if low <= joint <= high]
        same = partial(tokenizer.same_after_mark, int(ids[low - 1])) if low else tokenizer.same_after_round_trip
        if not _part_round_trips(ids[low:high], inside, tokenizer, 0 if low else first, same):
            return False
    return True


def _part_round_trips(
    ids: np.ndarray, joints: list[int], tokenizer: Tokenizer, first: int, same: Callable[[np.ndarray], bool]
) -> bool:
    """first: the first token that is checked. same: whether a piece of text is the same again."""
    if len(ids) <= MAX_WHOLE:
        return same(ids)
    if not tokenizer.splits_at_spaces:
        return all(same(ids[low:high]) for low, high in _windows(ids, joints, tokenizer, first))
    new = _new_words(ids, joints, tokenizer, first)
    if new and not same(np.frombuffer(b"".join(new), dtype=np.int32)):
        return False
    if len(tokenizer.seen_words) > MAX_SEEN_WORDS:
        tokenizer.seen_words.clear()
    tokenizer.seen_words.update(new)
    return True


def _new_words(ids: np.ndarray, joints: list[int], tokenizer: Tokenizer, first: int) -> dict[bytes, None]:
    """Ids, as bytes, of the words with the tokens before and after each joint, without those seen before; in
    order."""
    edges, seen, tokens, n = tokenizer.edges, tokenizer.seen_words, memoryview(ids.data), len(ids)
    new: dict[bytes, None] = {}
    done = first  # words before this token are checked
    for joint in sorted(joints):
        if joint < done or done == n:
            continue
        begin = max(joint - 1, done)
        while begin > done and not _begins_word(tokens, begin, edges):
            begin -= 1
        done = begin
        while done < n:
            done += 1
            if done == n or _begins_word(tokens, done, edges):
                word = tokens[begin:done].tobytes()
                if word not in seen:
                    new[word] = None
                begin = done
                if done > joint:
                    break
    return new


def _begins_word(tokens: memoryview, at: int, edges: bytes) -> bool:
    """Whether this token begins with a space that is between two other characters."""
    edge = edges[tokens[at]]
    if not edge & STARTS or not edges[tokens[at - 1]] & CLOSES:
        return False
    return edge & OPENS > 0 or (at + 1 < len(tokens) and edges[tokens[at + 1]] & FILLED > 0)


def _windows(ids: np.ndarray, joints: list[int], tokenizer: Tokenizer, first: int, reach: int = 8) -> list[list[int]]:
    """(low, high) around the joints: begin and end at words, at least `reach` tokens from a joint where there are as
    many.
    """
    spans: list[list[int]] = []
    opens = tokenizer.opens_word
    for joint in sorted(joints):
        low, high = max(first, joint - reach), min(len(ids), joint + reach)
        while low > first and not opens[ids[low]]:
            low -= 1
        while high < len(ids) and not opens[ids[high]]:
            high += 1
        if spans and low <= spans[-1][1]:
            spans[-1][1] = max(high, spans[-1][1])
        else:
            spans.append([low, high])
    return spans
