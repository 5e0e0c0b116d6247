"""Word by word is the same as whole, for texts with any white space."""

import numpy as np
import pytest

from lcprobe.data.near_duplicates import NearDuplicates, index_of
from lcprobe.data.preparing.encoding import ChunkEncoder, Part, WordEncoder, ids_are_those_of_words
from lcprobe.data.sources.sotu import speeches
from lcprobe.seeds import Draws
from lcprobe.tasks.text.tokenizer import load_tokenizer

PIECES = [
    " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "word", "Word", "words,", "end.", "é", "你好", "7",
    "4071", "<|bos|>", "x" * 80, "'tis", "co-", "😀", "-", "(so)", "\u2028", "Ġ", "▁",
]  # fmt: skip


@pytest.mark.parametrize("name", ["shipped", "shipped-1024"])
def test_random_texts_have_the_same_ids(name):
    tokenizer = load_tokenizer(name)
    encoder, draw = WordEncoder(tokenizer), Draws("texts")
    texts = ["".join(PIECES[i] for i in draw(n).integers(len(PIECES), n % 40)) for n in range(1, 600)]
    for first in range(0, len(texts), 50):  # later ones meet words that are known
        some = texts[first : first + 50]
        for text, ids in zip(some, encoder.encode_parts(some, [False] * len(some)), strict=True):
            assert np.array_equal(ids, tokenizer.encode(text)), repr(text)


def test_prose_and_parts_have_the_same_ids(monkeypatch):
    monkeypatch.setattr("lcprobe.data.preparing.encoding.MAX_KNOWN_WORDS", 300)  # forgotten again and again
    tokenizer, text = load_tokenizer(), next(speeches())[:8000]
    encoder = WordEncoder(tokenizer)
    cut = text.index(" ", 5000)
    parts, after = [text[:cut], text[cut:], text], [False, True, False]
    for got, want in zip(encoder.encode_parts(parts, after), tokenizer.encode_parts(parts, after), strict=True):
        assert np.array_equal(got, want)
    assert np.array_equal(np.concatenate(encoder.encode_parts(parts[:2], after[:2])), tokenizer.encode(text))


def test_a_tokenizer_with_other_ids_in_a_text_than_in_its_words_is_found():
    class Merging:
        """Joins two words in the middle of a text."""

        splits_at_spaces, edges = True, load_tokenizer().edges

        def encode_parts(self, parts, after_word):
            return [load_tokenizer().encode(part.replace("New York", "NewYork")) for part in parts]

    assert ids_are_those_of_words(Merging(), ["I was in Old York."])
    assert not ids_are_those_of_words(Merging(), ["I was in New York."])


def test_near_duplicates_have_no_tokens():
    text = next(speeches())[:3000]
    near = NearDuplicates(index_of([text]), 0.5)
    encoded = ChunkEncoder(load_tokenizer(), True, near).encode([Part("Other text.", False), Part(text, False)])
    assert encoded.left_out.tolist() == [False, True]
    assert encoded.ends.tolist() == [len(encoded.ids)] * 2
