"""The shipped tokenizer: exact round trips, single digits, pieces that join; clear refusals."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lcprobe.tasks.text.tokenizer as tokenizer_module
from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import texts
from lcprobe.data.make_tokenizer import train_small_tokenizer, train_tokenizer
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.tokenizer import SHIPPED, Tokenizer, load_tokenizer, read_words
from validation.tokenizers import llama_like, unigram

WORDS = st.sampled_from(
    [*read_words("nouns"), "1848", "7", "4071932;", "amber-owl:", "it's", "naïve", "3f2c9a71-5b0e", "(so", "x.y,"]
)


def small():
    """The shipped tokenizer of 1,024 entries."""
    return load_tokenizer("shipped-1024")


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_comes_back(name, text):
    tok = load_tokenizer(name)
    text = text.encode("utf-8", "ignore").decode()
    text = text.replace("<|bos|>", "")
    assert tok.decode(tok.encode(text)) == text


@pytest.mark.parametrize(("name", "size"), [("shipped", 4096), ("shipped-1024", 1024)])
def test_shape_of_the_shipped_vocabularies(name, size):
    tokenizer = load_tokenizer(name)
    assert tokenizer.vocab_size == size
    assert tokenizer.bos_id == 0
    for number in range(0, 10_000, 37):
        assert len(tokenizer.piece(f" {number}")) == len(str(number)), "one token a digit, the first with its space"
    assert all(3 <= len(w) for w in read_words("nouns"))


def test_the_small_vocabulary_has_the_fillers_and_short_keys():
    """Whole needles of four keys and four questions fit into 64 tokens with it."""
    tokenizer = load_tokenizer("shipped-1024")
    sizes = [len(tokenizer.piece(" " + word)) for word in read_words("nouns")]
    assert np.mean(sizes) < 3.25
    assert np.mean([len(tokenizer.piece(" " + word)) for word in read_words("fillers")]) < 1.5


@pytest.mark.slow
def test_the_small_vocabulary_is_what_its_function_makes():
    config = DataConfig()
    made = train_small_tokenizer(texts(config))
    assert made == load_tokenizer("shipped-1024").json_text


def test_a_bos_of_its_own_makes_another_tokenizer(tokenizer):
    """The digest of the file stands for the tokenizer with its usual BOS, named or not."""
    own = load_tokenizer("shipped", "!")
    assert (own.digest, own.bos_id) == (tokenizer.digest, tokenizer.encode("!")[0])
    assert tokenizer.identity == load_tokenizer("shipped", "<|bos|>").identity == tokenizer.digest
    assert len({tokenizer.identity, own.identity, load_tokenizer("shipped", ")").identity}) == 3


def test_offsets_say_where_tokens_start(tokenizer):
    text = "Fellow-Citizens of the Senate:\n\nThe year 1848 is gone; naïve — yes."
    ids, starts = tokenizer.encode_with_offsets(text)
    assert np.array_equal(ids, tokenizer.encode(text))
    for i in np.flatnonzero(tokenizer.opens_word[ids]):
        assert tokenizer.decode(ids[:i]) == text[: starts[i]]


@pytest.mark.parametrize("make", [load_tokenizer, small, llama_like, unigram])
@settings(max_examples=50, deadline=None)
@given(words=st.lists(st.sampled_from(read_words("nouns") + ["1848", "7"]), min_size=1, max_size=8))
def test_pieces_join_to_the_ids_of_the_whole(make, words):
    tok = make()
    pieces = np.concatenate([tok.piece(" " + w) for w in words])
    assert tok.same_after_round_trip(pieces)
    assert np.array_equal(tok.piece("".join(" " + w for w in words)), pieces)


@pytest.mark.parametrize("make", [load_tokenizer, small, llama_like, unigram])
@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(
        st.lists(WORDS, min_size=1, max_size=3).map(lambda words: "".join(" " + w for w in words)),
        min_size=1,
        max_size=90,
    )
)
def test_pieces_of_many_texts_are_those_of_each(make, texts):
    """As one text where there are few, as several where there are many, alone where spaces do not tell words."""
    tok, alone = Tokenizer(make().json_text), make()
    ids, sizes = tok.joined_pieces(texts)
    assert np.array_equal(ids, np.concatenate([alone.piece(text) for text in texts]))
    assert sizes.tolist() == [len(alone.piece(text)) for text in texts]
    assert all(np.array_equal(a, alone.piece(b)) for a, b in zip(tok.pieces(texts * 2), texts * 2, strict=True))
    odd = [texts[0] + "\n two  spaces", *texts, ";"]
    assert all(np.array_equal(a, alone.piece(b)) for a, b in zip(tok.pieces(odd), odd, strict=True))


@pytest.mark.parametrize("make", [load_tokenizer, small, llama_like, unigram])
@settings(max_examples=30, deadline=None)
@given(text=st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=60).map(" ".join))
def test_a_text_in_parts_has_the_ids_and_offsets_of_the_whole(make, text):
    tok = make()
    ids, starts = tok.encode_with_offsets(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "PART_CHARS", 7)
        in_parts = tok.encode_with_offsets(text)
    assert np.array_equal(in_parts[0], ids)
    assert np.array_equal(in_parts[1], starts)
    assert np.array_equal(ids, tok.encode(text))


def test_training_again_gives_the_same_tokenizer():
    texts = ["one two three four five " * 20, "falcon 42 otter 17"]
    assert train_tokenizer(texts, 300) == train_tokenizer(texts, 300)


def test_no_word_is_inside_another():
    words = read_words("nouns") + read_words("adjectives")
    assert len(set(words)) == len(words)
    assert not [(a, b) for a in words for b in words if a != b and a in b]
    assert not set(read_words("fillers")) & set(words)


def test_a_tokenizer_that_changes_a_format_is_refused():
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    letters = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz0123456789 ", 1)}
    inner = Inner(models.WordLevel({"<unk>": 0, **letters}, unk_token="<unk>"))
    inner.normalizer = normalizers.Replace("-", "")
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    tok = Tokenizer(inner.to_str())
    with pytest.raises(EpisodeError, match=r"^formats\.value: given 'uuids'; allowed: a format that this tokenizer"):
        check_format("formats.value", StringFormat("uuids"), tok)


@pytest.mark.parametrize(
    ("source", "bos", "key"),
    [("nowhere.json", None, "data.tokenizer"), ("shippd", None, "data.tokenizer"), ("shipped", "<nope>", "data.bos")],
)
def test_no_such_tokenizer(source, bos, key):
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(source, bos)
    assert caught.value.key == key


def test_a_broken_file_is_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{not json")
    with pytest.raises(ConfigError, match=r"^data\.tokenizer: given 'an unreadable file'"):
        load_tokenizer(str(tmp_path))


def test_an_id_beyond_all_vocabularies_is_refused():
    written = json.loads(load_tokenizer().json_text)
    written["model"]["vocab"] = {
        token: i + 3_000_000_000 * (i == 4095) for token, i in written["model"]["vocab"].items()
    }
    with pytest.raises(
        ConfigError, match=r"data\.tokenizer: given 'ids up to 3000004095'; allowed: 1 \.\. 16777216 ids"
    ):
        Tokenizer(json.dumps(written))


@pytest.mark.parametrize("of", [list, tuple, np.asarray, torch.tensor], ids=["list", "tuple", "array", "tensor"])
def test_ids_of_any_kind_are_decoded(of):
    tok = small()
    ids = [int(i) for i in tok.encode("a falcon: 40")]
    assert tok.decode(of(ids)) == "a falcon: 40"
    assert tok.text_of(of(ids[1:])) == tok.text_of(np.asarray(ids[1:]))
    assert tok.decode(of([])) == ""
