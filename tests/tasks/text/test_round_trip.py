"""Joints: checking words, or windows, agrees with encoding the whole text again; wrong joints are detected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers, trainers

from lcprobe.data.sources.sotu import speeches
from lcprobe.tasks.text.round_trip import round_trips
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.tokenizers import llama_like, numbers_in_threes, unigram


def across_words() -> Tokenizer:
    """Byte-level BPE that sees no words: its tokens reach over spaces."""
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, initial_alphabet=alphabet)
    inner.train_from_iterator([text()[i : i + 400] for i in range(0, 40_000, 400)], trainer)
    return Tokenizer(inner.to_str())


def text() -> str:
    """Prose with numbers, keys and marks among its words."""
    words = " ".join(t for i, t in enumerate(speeches()) if i < 4).split()[:8000]
    return " ".join(f"{word} {i * 7919}; x-{word}:" if i % 5 == 0 else word for i, word in enumerate(words))


MAKERS = {
    "shipped": load_tokenizer,
    "llama": llama_like,
    "unigram": unigram,
    "threes": numbers_in_threes,
    "across": across_words,
}
ENCODED: dict[str, tuple[Tokenizer, np.ndarray]] = {}


def encoded(which: str) -> tuple[Tokenizer, np.ndarray]:
    if which not in ENCODED:
        tok = MAKERS[which]()
        ENCODED[which] = tok, tok.encode(text())[:4420]
    return ENCODED[which]


def test_only_vocabularies_of_words_are_checked_by_words():
    assert [which for which in MAKERS if not encoded(which)[0].splits_at_spaces] == ["across"]


@pytest.mark.parametrize("which", MAKERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_says_what_the_whole_text_says(which, data):
    tok, ids = encoded(which)
    opens = np.flatnonzero(tok.opens_word[ids[:4000]])
    start = int(data.draw(st.sampled_from(opens.tolist())))
    cut, other, size = data.draw(st.tuples(st.integers(1, 400), st.integers(0, 4400), st.integers(1, 20)))
    base = ids[start : start + 420]
    cut, put = min(cut, len(base)), ids[other : other + size]
    joined = np.concatenate([base[:cut], put, base[cut:]])
    if tok.bos_id is not None:
        joined, cut = np.concatenate([[tok.bos_id], joined]).astype(np.int32), cut + 1
    joints = [cut, cut + len(put)]
    assert round_trips(joined, joints, tok) == tok.same_after_round_trip(joined)
    assert round_trips(joined, joints, tok) == tok.same_after_round_trip(joined), "and so from memory"


@pytest.mark.parametrize("which", ["shipped", "llama", "threes"])
def test_a_word_in_other_tokens_is_found_wherever_it_stands(which):
    tok, ids = encoded(which)
    word = tok.piece(" government")
    halves = np.concatenate([tok.piece(" gov"), tok.piece("ernment")])
    assert not np.array_equal(word, halves)
    start = int(np.flatnonzero(tok.opens_word[ids])[3])
    for at in np.flatnonzero(tok.opens_word[ids[start : start + 500]])[1:40]:
        left, right = ids[start : start + at], ids[start + at : start + 600]
        joint = len(left)
        assert round_trips(np.concatenate([left, word, right]), [joint, joint + len(word)], tok)
        assert not round_trips(np.concatenate([left, halves, right]), [joint, joint + len(tok.piece(" gov"))], tok)
