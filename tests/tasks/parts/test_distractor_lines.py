"""Lines sampled from a pool: as many as requested, none excluded, longer samples extend shorter ones, and none known
by its novelty.
"""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy import stats

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Draws, LazyPermutation, Stream
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.mqar import MQAR
from lcprobe.tasks.niah import NIAH
from lcprobe.tasks.parts.distractor_lines import LineBank
from lcprobe.tasks.parts.placement import TextPlace, UniqueStrings
from lcprobe.tasks.phonebook import PhoneBook
from lcprobe.tasks.text.formats import StringFormat
from tests.tasks.checks import TOKENIZERS, build_task, materials_for

LINES = Formats("needles", "words", "numbers")
WORDS, NUMBERS, HEX = StringFormat("words"), StringFormat("numbers", 4), StringFormat("hex", 4)


def bank_of(materials, key=WORDS, value=NUMBERS):
    return LineBank(materials.tokenizer, key, value, " {key}:", ";", " find", "test")


def sample_of(bank, materials, index=0):
    return bank.sample(Draws("lines", index)), UniqueStrings(
        materials.tokenizer, [TextPlace(materials.stream("noise"), 0)], 100, " find"
    )


def read(materials, filled):
    return [line.split(": ") for line in materials.tokenizer.decode(filled.ids).strip(" ;").split("; ")]


@pytest.mark.parametrize("n", [1, 5, 90, 4096, 4097, 9000, 1 << 15])
def test_a_lazy_permutation_is_one_and_all_its_places_are_alike(n):
    assert np.array_equal(np.sort(LazyPermutation(Stream("d", 0), n)(np.arange(n))), np.arange(n))
    if n < 2:
        return
    tops = np.concatenate(
        [LazyPermutation(Stream("deal", n, i), n)(np.array([0, 1, n - 1])) for i in range(3000)]
    ).reshape(-1, 3)
    jitter = Stream("jitter").uniform(3000)
    for place in range(3):
        assert stats.kstest((tops[:, place] + jitter) / n, "uniform").pvalue > 1e-4
    gaps = (tops[:, 1] - tops[:, 0]) % n - 1  # of two that lie side by side: 0 .. n - 2, none likelier
    assert stats.kstest((gaps + jitter) / (n - 1), "uniform").pvalue > 1e-4


OF_LINES = [(WORDS, NUMBERS), (NUMBERS, NUMBERS), (NUMBERS, HEX), (WORDS, WORDS)]


@pytest.mark.parametrize(
    ("which", "key", "value"),
    [
        pytest.param(which, *pair, marks=pytest.mark.slow if HEX in pair and which != TOKENIZERS[0] else ())
        for which in TOKENIZERS
        for pair in OF_LINES
    ],
)
def test_lines_are_distinct_and_contain_nothing_of_the_needles(materials, which, key, value):
    m = materials_for(materials, which)
    bank = bank_of(m, key, value)
    for index in range(8):
        drawn, unique = sample_of(bank, m, index)
        needles = drawn.keys(3, unique) + drawn.values(2, unique)
        filled = drawn.some(drawn.keys(40, unique), drawn.values(40, unique))
        lines = read(m, filled)
        assert len(lines) == len(filled) == 40
        assert m.tokenizer.same_after_round_trip(filled.ids)
        for strings in ([k for k, _ in lines], [v for _, v in lines]):
            assert len(set(strings)) == 40
            assert not any(a in s or s in a for a in needles for s in strings)
        if key == value:
            assert not {k for k, _ in lines} & {v for _, v in lines}
        assert [m.tokenizer.decode(v).strip() for v in filled.values] == [v for _, v in lines][:32]


def test_more_lines_begin_with_fewer_and_fill_what_they_can(materials):
    lines, unique = sample_of(bank_of(materials), materials)
    lines.keys(2, unique)
    long = lines.run(1000)
    for tokens in (0, 5, 60, 333, 899):
        short = lines.run(tokens)
        assert np.array_equal(short.ids, long.ids[: len(short.ids)])
        assert len(short.ids) <= tokens < long.ends[len(short) + 1]


@pytest.mark.parametrize("which", TOKENIZERS)
@pytest.mark.parametrize("ask", [" {key}:", " The secret value for {key} is"])
def test_a_line_is_its_pieces(materials, which, ask):
    """Whatever is kept of a pool, a line has the ids of the key as worded, of the value and of the tail."""
    m = materials_for(materials, which)
    bank = LineBank(
        m.tokenizer, StringFormat("words", pairs=True), StringFormat("uuids"), ask, ";", " find", "test", ask
    )
    draw = Stream("lines", which)
    keys, values = draw.integers(len(bank.keys.strings), 50), draw.integers(len(bank.values.strings), 50)
    ids, ends = bank.lines(keys, values, None)
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        parts = ask.format(key=bank.keys.strings[key]), " " + bank.values.strings[value], ";"
        assert np.array_equal(ids[ends[i] : ends[i + 1]], np.concatenate([m.tokenizer.piece(part) for part in parts]))
        assert np.array_equal(bank.some_values(values[i : i + 1])[0], m.tokenizer.piece(parts[1]))


def test_pools_are_drawn_once_for_all_wordings(materials):
    banks = [
        LineBank(materials.tokenizer, WORDS, NUMBERS, ask, tail, " find", "once")
        for ask, tail in ((" {key}:", ";"), (" for {key} is", "."))
    ]
    assert banks[0].keys is banks[1].keys
    assert banks[0].values.rows(" ", "") is banks[1].values.rows(" ", "")


def test_too_many_lines_is_one_clear_line(materials):
    lines, unique = sample_of(bank_of(materials), materials)
    lines.keys(2, unique)
    with pytest.raises(EpisodeError, match=r"^formats: given 'a haystack of more than 27\d needle-like lines'"):
        lines.run(9000)


def shown(task, formats, length, n):
    """Of each sample: the lines of its context as (key, value), the asked pair; an episode's own wording apart."""
    found = []
    for i in range(n):
        e = task.episode(Factors(formats, length, (i * 0.6180339887498949) % 1, i))
        q = e.queries[0]
        text = task.materials.tokenizer.decode(e.ids[: q.start - 4])
        pairs = [part.rsplit(" ", 2) for part in text.split(";")]
        found.append(([(p[1], p[2]) for p in pairs if len(p) == 3 and p[1].endswith(":")], (q.key + ":", q.answer)))
    return found


@cache
def familiar(materials, cls, formats, **config):
    """The samples of one task."""
    return shown(build_task(cls, materials, **config), formats, 900, 240)


@pytest.mark.parametrize("what", [0, 1, 2], ids=["key", "value", "neighbours"])
@pytest.mark.parametrize(
    ("cls", "config", "formats"),
    [
        (PhoneBook, {"digits": 5}, LINES),
        (NIAH, {"n_keys": 2, "template": "line", "digits": 3}, LINES),
        (MQAR, {"share": 0.8, "n_queries": 1}, Formats("noise", "words", "numbers")),
    ],
)
def test_the_target_line_is_as_familiar_as_the_others(materials, cls, config, formats, what):
    """Its rank among the lines of its context, by how often other contexts hold its key (value, or what follows its
    key).
    """
    samples = familiar(materials, cls, formats, **config)
    views = []
    for lines, asked in samples:
        after = dict(zip(lines, [*lines[1:], ("", "")], strict=True))
        views.append(([(line[0], after[line][0]) if what == 2 else line[what] for line in lines], lines.index(asked)))
    counted = Counter(item for items, _ in views for item in items)
    ranks = []
    for i, (items, at) in enumerate(views):
        own = np.array([counted[item] for item in items])
        coin = Stream("ties", i).uniform(1)[0]
        ranks.append(((own < own[at]).sum() + coin * (own == own[at]).sum()) / len(own))
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3
    if what < 2:
        assert max(counted.values()) > 1, "contexts share strings, or the test says nothing"


def test_a_key_has_another_value_in_every_sample(materials):
    samples = shown(build_task(NIAH, materials, n_keys=2, template="line", digits=3), LINES, 900, 60)
    values: dict[str, set[str]] = {}
    for lines, _ in samples:
        for key, value in lines:
            values.setdefault(key, set()).add(value)
    assert np.mean([len(v) for v in values.values()]) > 5


def test_needles_are_the_same_in_lines_and_in_a_text(materials):
    niah = build_task(NIAH, materials, n_keys=2, word_pairs=True)
    for i in range(20):
        queries = [
            niah.episode(Factors(Formats(haystack, "words", value), length, 0.5, i)).queries[0]
            for haystack in ("needles", "noise", "corpus")
            for length in (300, 2000)
            for value in ("numbers", "uuids", "words")
        ]
        assert len({q.key for q in queries}) == 1
        assert len({q.answer for q in queries}) == 3


def test_the_text_around_the_lines_does_not_reveal_which_is_a_needle(materials):
    """The words that fill the rest of the length are before all lines, wherever the needles are."""
    niah = build_task(NIAH, materials, n_keys=2, template="line", digits=3)
    for i in range(60):
        e = niah.episode(Factors(LINES, 200 + i, (0.0, 0.5, 1.0)[i % 3], i))
        text = materials.tokenizer.decode(e.ids[: e.queries[0].start])
        lines = r"( [a-z]+: \d{3};)+"
        assert re.search(rf"[a-z>]{lines} {e.queries[0].key}:$", text)
