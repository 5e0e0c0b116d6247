"""Recall and precision of near-duplicates of what is held out: copies with changed words, parts, quotes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.data import near_duplicates
from lcprobe.data.config import DataConfig
from lcprobe.data.near_duplicates import N_WORDS, NearDuplicates, Words, index_of
from lcprobe.data.prepare import prepare
from lcprobe.data.sources.sotu import speeches
from lcprobe.data.splits import split_documents
from lcprobe.errors import DataError
from lcprobe.schema import build
from lcprobe.seeds import Draws

TEXTS = [text[:5000] for text in list(speeches())[:24]]
HELD_OUT = TEXTS[:8]


def sequences(text):
    """The sequences of words by definition."""
    words = ["".join(c for c in word.lower() if c.isalnum() or c == "_") for word in text.split()]
    words = [word for word in words if word]
    return [tuple(words[i : i + N_WORDS]) for i in range(len(words) - N_WORDS + 1)]


def changed(text, every, name):
    """A text with one word in `every` replaced at random."""
    words, draw = text.split(" "), Draws("changed", name)
    for i in np.flatnonzero(draw("which").uniform(len(words)) < 1 / every):
        words[i] = f"word{i}"
    return " ".join(words)


def test_hashes_are_equal_where_sequences_are_wherever_they_stand():
    words = Words()
    hashes = [value for text in TEXTS[:6] for value in words.sequences(text).tolist()]
    values = [value for text in TEXTS[:6] for value in sequences(text)]
    assert len(hashes) == len(values)
    assert len(set(hashes)) == len(set(values)) == len(set(zip(hashes, values, strict=True)))
    assert words.sequences("A short, text.").size == words.sequences("- " * 40).size == 0


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_exactly_those_with_the_share_are_found(share):
    """Against sets of words: no document with the share is missed, and no other is found."""
    held = [set(sequences(text)) for text in HELD_OUT]
    near, union = NearDuplicates(index_of(HELD_OUT), share), set().union(*held)
    candidates = [*TEXTS, *(changed(text, every, every) for text in HELD_OUT for every in (5, 20, 100))]
    candidates += [TEXTS[20][:4000] + " " + text[:2500] for text in HELD_OUT]
    expected = []
    for text in candidates:
        own = sequences(text)
        expected += [
            sum(s in union for s in own) >= share * len(own)
            or any(
                len(one & set(own)) >= share * len(one) for one in held if len(one) >= near_duplicates.LEAST_SEQUENCES
            )
        ]
    assert [bool(near.which([text])[0]) for text in candidates] == expected
    assert len(HELD_OUT) <= sum(expected) < len(candidates) - 12
    together = ["", *candidates, "Short.", HELD_OUT[0]]  # of one text after another no sequence reaches over its end
    assert near.which(together).tolist() == [False, *expected, False, True]


def test_case_punctuation_and_line_breaks_make_no_difference():
    near = NearDuplicates(index_of(HELD_OUT), 1.0)
    assert near.which([HELD_OUT[2].upper().replace(". ", "!\n\n").replace(", ", " ; ")])[0]


def test_a_quote_of_a_short_text_is_no_copy_of_it():
    quote = " ".join(f"word{i}" for i in range(30))
    near = NearDuplicates(index_of([quote, *HELD_OUT]), 0.5)
    assert near.which([quote])[0]
    assert not near.which([TEXTS[20] + " " + quote])[0]


def prepared(tmp_path, texts, name="a", **more):
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = {"corpus": [str(tmp_path / f"{name}.jsonl")], "folder": str(tmp_path / "out"), "held_out": 0.2, **more}
    return build(DataConfig, given, "data")


def test_copies_of_what_is_held_out_are_neither_trained_on_nor_training_haystack(tmp_path, caplog):
    held = [one.document for one in split_documents(prepared(tmp_path, TEXTS)) if one.held_out]
    assert len(held) > 3
    config = prepared(tmp_path, [*(changed(text, 40, i) for i, text in enumerate(held)), *TEXTS])
    # a copy may be held out itself, and then something else is a copy of it
    copies = [one.document for one in [*split_documents(config)][: len(held)] if not one.held_out]
    with caplog.at_level("INFO"):
        data = prepare(config)
    trained = data.tokenizer.decode(data.tokens(0, data.n_tokens)).split("<|bos|>")[1:]
    assert set(trained) == set(TEXTS) - set(held)
    assert data.manifest["near_duplicates"] == len(copies) > 2
    assert f"{len(copies)} near-duplicates of what is held out left out" in caplog.text
    haystack = (data.folder / "train.txt").read_text()
    assert not any(copy[:300] in haystack for copy in copies)
    off = prepare(replace(config, near_duplicates=None))
    assert len(off.starts) == len(trained) + len(copies)


def test_a_corpus_of_one_text_over_and_over_says_so(tmp_path):
    with pytest.raises(DataError, match=r"3 are near-duplicates of what is held out \(data\.near_duplicates\)"):
        prepare(prepared(tmp_path, [TEXTS[0]] * 4, held_out=0.001))


@pytest.mark.slow
def test_speeches_have_no_near_duplicates():
    """So that the quickstart's data are what they were; the largest share is 1 %."""
    found = list(split_documents(build(DataConfig, {}, "data")))
    near = NearDuplicates(index_of([one.document for one in found if one.held_out]), 0.02)
    assert not any(near.which([one.document])[0] for one in found if not one.held_out)
