"""Documents as haystacks: the same text every time, needles in exact text, and no key or value that the text already
contains.
"""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.errors import EpisodeError
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import DOCUMENTS
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.text import document_kinds
from lcprobe.tasks.text.document_kinds import DOCUMENT_CHARS, SPLITS, document_text
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import read_words
from validation.tokenizers import unigram

pytestmark = pytest.mark.usefixtures("small_pools")
WINDOW = 96
"""Tokens of a window that tells the parts apart."""
GENERATED = [name for name in DOCUMENTS if name != "python"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_text_is_the_same_each_time_and_large(name, split):
    text = document_text(name, split)
    assert text == document_text(name, split)
    assert DOCUMENT_CHARS <= len(text) < DOCUMENT_CHARS + 5000
    assert text.isascii()


@pytest.mark.parametrize("name", [*DOCUMENTS, "words"])
def test_training_and_probing_read_different_parts(all_haystacks, name):
    """Windows of a record or two are in one part alone; shorter ones may be boilerplate of their kind."""
    materials = all_haystacks["shipped"]
    probe, train = (materials.stream(name, split).ids for split in ("probe", "train"))
    known = {train[i : i + WINDOW].tobytes() for i in range(len(train) - WINDOW)}
    shared = [probe[i : i + WINDOW].tobytes() in known for i in range(0, len(probe) - WINDOW, 7)]
    assert sum(shared) < 0.01 * len(shared)
    for length in (300, 2000):
        for index in range(4):
            niah = NIAH(build(NIAHConfig, {"n_keys": 1}, "task"), materials)
            factors = Factors(Formats(name, "words", "numbers"), length, 1.0, index)
            text = {split: niah.episode(replace(factors, split=split)) for split in SPLITS}
            for split, ids in (("probe", probe), ("train", train)):
                episode = text[split]
                start, n = episode.haystack_start, min(100, len(ids) - episode.haystack_start)
                assert np.array_equal(episode.ids[1 : 1 + n], ids[start : start + n])


def test_noise_is_the_same_for_both(materials):
    assert materials.stream("noise", "train").text == materials.stream("noise", "probe").text


def test_what_no_corpus_changes_is_made_once_a_process_and_tokenizer(materials, all_materials):
    bare = Materials(materials.tokenizer)
    assert bare.stream("words") is materials.stream("words")
    assert bare.stream("words", "train") is not materials.stream("words")
    others = {id(own.stream("words")) for own in all_materials.values()}
    assert len(others) == len(all_materials)
    with pytest.raises(EpisodeError, match="no corpus is loaded"):
        bare.stream("corpus")


def test_generated_text_is_of_its_kind_and_contains_no_key():
    nouns = read_words("nouns")
    texts = {name: document_text(name) for name in GENERATED}
    for name, text in texts.items():
        assert not [noun for noun in nouns if noun in text], name
        assert not re.search(r"\d{5}", text), name
    assert len({json.loads(line)["note"] for line in texts["json"].splitlines()}) > 1000
    assert {len(line.split(", ")) for line in texts["csv"].splitlines()} == {7}
    tables = [line for line in texts["markdown"].splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {6}
    assert all(" [worker-" in line for line in texts["logs"].splitlines())


def test_python_source_is_code_and_does_not_name_this_machine():
    text = document_text("python")
    assert min(text.count(sign) for sign in ("\ndef ", "\nimport ", "return self", "\n\tdef __init__(self")) > 100
    assert sys.prefix not in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_length_and_format_is_exact_and_strings_occur_once(all_haystacks, name):
    for materials in all_haystacks.values():
        tok = materials.tokenizer
        niah = NIAH(build(NIAHConfig, {"n_keys": 3, "template": "line"}, "task"), materials)
        for index in range(24):
            key, value = (("words", "numbers"), ("numbers", "uuids"), ("hex", "words"), ("uuids", "hex"))[index % 4]
            length = (300, 301, 500, 1003)[index // 6]
            episode = niah.episode(Factors(Formats(name, key, value), length, (index % 5) / 4, index))
            assert len(episode.ids) == length
            assert tok.same_after_round_trip(episode.ids)
            query = episode.queries[0]
            context = tok.decode(episode.ids[: query.start])
            assert context.count(query.answer) == 1
            assert context.count(query.key) == 2, "in its needle and in the question"


def test_a_tokenizer_without_the_characters_is_one_clear_line():
    with pytest.raises(
        EpisodeError, match=r"^haystack json: given \"a tokenizer without '\{'\"; allowed: one that gives back"
    ):
        Materials(unigram()).stream("json")


def test_an_interpreter_without_source_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(document_kinds.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(
        EpisodeError, match="^haystack: given 'python'; allowed: an interpreter with its library's source"
    ):
        document_text("python")


def test_windows_of_code_are_found_wherever_they_begin(all_haystacks):
    for materials in all_haystacks.values():
        for name in DOCUMENTS:
            stream = materials.stream(name)
            for offset in range(0, len(stream), 211):
                for n in (7, 200, 997):
                    start = stream.window(offset, n)
                    assert stream.cuts[start]
