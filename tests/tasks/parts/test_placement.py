"""Strings that stand nowhere else, lines by number, and many small units in one array."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.parts.placement import TextPlace, UniqueStrings, gather_units
from lcprobe.tasks.text.formats import StringFormat
from lcprobe.tasks.text.haystack import MAX_SHIFT
from lcprobe.tasks.text.tokenizer import read_words
from tests.tasks.checks import TOKENIZERS, materials_for

QUIET = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), min_size=1, max_size=6),
    st.integers(0, 50),
    st.integers(0, 99),
)
def test_joined_is_concatenation(units, n, seed):
    arrays = [np.array(unit, dtype=np.int32) for unit in units]
    order = np.random.default_rng(seed).integers(0, len(units), n)
    assert gather_units(arrays, order).tolist() == [i for number in order for i in units[number]]


@QUIET
@given(
    index=st.integers(0, 10**6),
    length=st.integers(50, 5000),
    n=st.integers(1, 12),
    kind=st.sampled_from(["words", "numbers"]),
)
def test_unused_strings_are_not_in_the_haystack_the_wording_or_each_other(materials, index, length, n, kind):
    stream, tok = materials.stream("corpus"), materials.tokenizer
    offset = index % len(stream)
    unique = UniqueStrings(tok, [TextPlace(stream, offset)], length, " the falcon and the tulip of 1234567")
    keys = unique.draw(StringFormat(kind), n, Stream("k", index), "formats.key")
    values = unique.draw(StringFormat(kind), n, Stream("v", index), "formats.value")
    strings = keys + values
    text = tok.decode(stream.take(offset, length + MAX_SHIFT))
    assert len(set(strings)) == 2 * n
    for string in strings:
        assert string not in text
        assert string not in ("falcon", "tulip", "1234567")
        assert not any(string in other for other in strings if other != string)


@QUIET
@given(
    name=st.sampled_from(["noise", "corpus", "csv"]),
    start=st.integers(0, 10**6),
    n=st.integers(1, 4000),
    share=st.floats(0, 1),
)
def test_a_cut_is_the_nearest_word_boundary_and_a_window_the_first_that_fits(materials, name, start, n, share):
    stream = materials.stream(name)
    start, at = start % len(stream), round(share * n)
    inside = np.arange(n + 1)
    cuts = inside[stream.cuts[(start + inside) % len(stream)]]
    nearest = int(cuts[np.argmin(np.abs(cuts - at))]) if len(cuts) else n  # the earlier of two
    assert stream.cut_near(start, n, at) == (at if at in (0, n) else nearest)

    starts = np.arange(start, start + MAX_SHIFT) % len(stream)
    both, either = (stream.cuts[starts] & ends[(starts + n) % len(stream)] for ends in (stream.cuts, stream._ends))
    fits = [*np.flatnonzero(both[:32]), *np.flatnonzero(either)]
    if fits:
        assert stream.window(start, n) == starts[fits[0]]
    else:
        with pytest.raises(EpisodeError, match=f"^haystack {name}: given '{n} tokens'"):
            stream.window(start, n)


def test_a_closed_set_that_is_used_up_is_one_clear_line(materials):
    unique = UniqueStrings(materials.tokenizer, [TextPlace(materials.stream("noise"), 0)], 100, " sun")
    assert sorted(unique.choose(["owl", "fox", "gnu", "sun"], 3, Stream("c"), "names")) == ["fox", "gnu", "owl"]
    with pytest.raises(EpisodeError, match=r"^names: given '1 of 4 names'; allowed: fewer needles"):
        unique.choose(["owl", "fox", "gnu", "sun"], 1, Stream("c"), "names")


def test_a_mark_after_a_word_is_kept_apart_from_it(materials):
    """A vocabulary with `s.` in it merges the end of `compass.`: such words are no values there."""
    apart = {}
    for which in TOKENIZERS:
        tok = materials_for(materials, which).tokenizer
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
    for start, n in (
        (0, size),
        (5, size - 5),
        (5, size),
        (size - 1, 2),
        (7, 0),
        (3, 4 * size + 11),
        (size + 2, 2 * size),
    ):
        assert np.array_equal(stream.take(start, n), stream.ids[np.arange(start, start + n) % size])
