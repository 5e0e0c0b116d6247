"""Strings that stand nowhere else, lines by number, and many small units in one array."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.formats import StringFormat
from lcprobe.tasks.haystack import MAX_SHIFT
from lcprobe.tasks.placing import Unused, joined
from lcprobe.tasks.tokenizer import read_words
from tests.tasks.sound import TOKENIZERS, of_tokenizer

QUIET = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 50), st.integers(0, 99)
)
def test_joined_is_concatenation(units, n, seed):
    arrays = [np.array(unit, dtype=np.int32) for unit in units]
    order = np.random.default_rng(seed).integers(0, len(units), n)
    assert joined(arrays, order).tolist() == [i for number in order for i in units[number]]


@QUIET
@given(
    index=st.integers(0, 10**6), length=st.integers(50, 5000), n=st.integers(1, 12), kind=st.sampled_from(["words", "numbers"])
)
def test_unused_strings_are_not_in_the_haystack_the_wording_or_each_other(materials, index, length, n, kind):
    stream, tok = materials.stream("corpus"), materials.tokenizer
    offset = index % len(stream)
    unused = Unused(tok, stream, offset, length, " the falcon and the tulip of 1234567")
    keys = unused.draw(StringFormat(kind), n, Stream("k", index), "formats.key")
    values = unused.draw(StringFormat(kind), n, Stream("v", index), "formats.value")
    strings = keys + values
    text = tok.decode(stream.take(offset, length + MAX_SHIFT))
    assert len(set(strings)) == 2 * n
    for string in strings:
        assert string not in text
        assert string not in ("falcon", "tulip", "1234567")
        assert not any(string in other for other in strings if other != string)


def test_a_closed_set_that_is_used_up_is_one_clear_line(materials):
    unused = Unused(materials.tokenizer, materials.stream("noise"), 0, 100, " sun")
    assert sorted(unused.choose(["owl", "fox", "gnu", "sun"], 3, Stream("c"), "names")) == ["fox", "gnu", "owl"]
    with pytest.raises(EpisodeError, match=r"^names: given '1 of 4 names'; allowed: fewer needles"):
        unused.choose(["owl", "fox", "gnu", "sun"], 1, Stream("c"), "names")


def test_a_mark_after_a_word_is_kept_apart_from_it(materials):
    """A vocabulary with `s.` in it merges the end of `compass.`: such words are no values there."""
    apart = {}
    for which in TOKENIZERS:
        tok = of_tokenizer(materials, which).tokenizer
        for mark in (".", ";"):
            for word in read_words("nouns"):
                apart[which, mark, word] = tok.keeps_apart(word, mark)
                parts = np.concatenate([tok.piece(" " + word), tok.piece(mark)])
                assert np.array_equal(tok.piece(" " + word + mark), parts) == apart[which, mark, word]
    assert not apart["unigram", ".", "compass"]
    assert all(apart["shipped", mark, word] for mark in ".;" for word in read_words("nouns"))


def test_a_window_goes_round_as_often_as_it_must(materials):
    stream = materials.stream("noise")
    size = len(stream)
    for start, n in ((0, size), (5, size - 5), (5, size), (size - 1, 2), (7, 0), (3, 4 * size + 11), (size + 2, 2 * size)):
        assert np.array_equal(stream.take(start, n), stream.ids[np.arange(start, start + n) % size])
