"""All strings that compete in an episode are as rare in texts as one another: those of the needles have to be absent
from the text around them, and where other lines did not, the rarest value of all was the answer too often."""

import re

import numpy as np
import pytest

from lcprobe.seeds import Draws
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.parts.distractor_lines import ENOUGH, line_bank
from lcprobe.tasks.parts.layout import Sample
from lcprobe.tasks.parts.placement import MAX_GUARD
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.haystack import Materials, TokenStream

pytestmark = pytest.mark.usefixtures("small_pools")
N, ALARM = 80, 4.0
"""Samples, and standard errors from one half at which a mean rank is no accident."""
LINES = {"type": "niah", "n_keys": 4, "template": "line"}
LINE = re.compile(r" ([\w-]+): ([\w-]+)(?=;)")
PLAIN = ("corpus", "words", "numbers")


@pytest.fixture(scope="module")
def texts(materials):
    """Materials with all speeches of the corpus twice: no window is the whole of it."""
    text = materials.stream("corpus").text
    return Materials(materials.tokenizer, TokenStream.from_text("corpus", f"{text}{text}", materials.tokenizer))


def lines_of(task, formats, index, length=128, split="probe", control="none"):
    """The keys and values of the lines of a context, and the question."""
    factors = Factors(Formats(*formats), length, (index * 0.6180339887498949) % 1, index, control, split)
    episode = task.episode(factors)
    query = episode.queries[0]
    found = LINE.findall(task.materials.tokenizer.decode(episode.ids[: query.start]))
    return [key for key, _ in found], [value for _, value in found], query


def rank_of(string, strings, count):
    """Its rank among strings by how often a text has them, 0 .. 1, equal ones halved: of one drawn evenly, one half
    in the mean."""
    own, counts = count(string), [count(other) for other in strings]
    return (sum(c < own for c in counts) + sum(c == own for c in counts) / 2) / len(counts)


def deviation(ranks):
    """Standard errors from one half; ranks that hardly differ show nothing."""
    return abs(np.mean(ranks) - 0.5) / max(np.std(ranks), 0.02) * len(ranks) ** 0.5


@pytest.mark.parametrize(
    ("kinds", "digits", "split"),
    [
        (("words", "numbers"), 2, "probe"),
        (("words", "numbers"), 3, "probe"),
        (("words", "numbers"), 2, "train"),
        (("hex", "hex"), 2, "probe"),
        (("numbers", "words"), 2, "probe"),
        (("numbers", "numbers"), 3, "probe"),
    ],
)
def test_the_target_among_lines_is_as_rare_in_the_corpus_as_they(texts, kinds, digits, split):
    task = choose_task({**LINES, "digits": digits}, "task").create(texts)
    count = texts.stream("corpus").count
    ranks = {"key": [], "value": []}
    for i in range(N):
        keys, values, query = lines_of(task, ("needles", *kinds), i, split=split)
        ranks["key"].append(rank_of(query.key, keys, count))
        ranks["value"].append(rank_of(query.answer, values, count))
    assert max(map(deviation, ranks.values())) < ALARM


def test_the_key_that_is_absent_and_the_value_that_counts_for_it_are_as_rare_as_the_lines(texts):
    task = choose_task({**LINES, "digits": 2}, "task").create(texts)
    count, ranks = texts.stream("corpus").count, {"key": [], "value": []}
    for i in range(N):
        keys, values, query = lines_of(task, ("needles", "numbers", "hex"), i, control="wrong_key")
        assert query.key not in keys
        ranks["key"].append(rank_of(query.key, keys, count))
        ranks["value"].append(rank_of(query.answer, values, count))
    assert max(map(deviation, ranks.values())) < ALARM


@pytest.mark.parametrize(
    ("settings", "formats"),
    [
        ({"type": "niah", "digits": 2}, PLAIN),
        ({"type": "niah", "digits": 2}, ("corpus", "words", "hex")),
        ({"type": "niah", "n_keys": 3, "n_values": 2, "digits": 2}, ("noise", "words", "numbers")),
        ({"type": "mqar", "digits": 2}, PLAIN),
        ({"type": "mqar", "digits": 3, "share": 0.4, "n_queries": 1}, PLAIN),
        ({"type": "ordered", "digits": 2}, PLAIN),
        ({"type": "vt", "digits": 2}, PLAIN),
        ({"type": "copying", "ask": "gram", "words": 8, "digits": 2}, ("corpus", "-", "numbers")),
        ({"type": "semantic"}, ("corpus", "-", "-")),
        ({"type": "phonebook", "digits": 5}, ("needles", "words", "numbers")),
        ({"type": "qa", "hops": 2}, ("needles", "-", "-")),
    ],
)
def test_the_answer_is_as_rare_in_the_corpus_as_the_other_candidates(texts, settings, formats):
    task, count = choose_task(settings, "task").create(texts), texts.stream("corpus").count
    ranks = []
    for i in range(N):
        episode = task.episode(Factors(Formats(*formats), 500, (i * 0.6180339887498949) % 1, i))
        query = episode.queries[0]
        names = [texts.tokenizer.decode(candidate).strip().split(" and ")[0] for candidate in query.candidates]
        ranks.append(rank_of(names[0], names, count))
    assert deviation(ranks) < ALARM


@pytest.mark.parametrize("form", ["numbers", "hex", "words", "uuids"])
@pytest.mark.parametrize("digits", [2, 3])
def test_no_line_has_a_string_that_a_needle_could_not_have(texts, form, digits):
    """Absent from the corpus as far as needles are, or, of too few such ones, among the freest."""
    task = choose_task({**LINES, "digits": digits}, "task").create(texts)
    for index in range(8):
        _, values, _ = lines_of(task, ("needles", "words", form), index, 300 if form == "uuids" else 128)
        sample = Sample(task.seed_names, Factors(Formats("needles", "words", form), 128, 0.5, index), 0, texts)
        corpus = next(place for place in sample.places if place.stream is texts.stream("corpus"))
        pool = line_bank(
            texts.tokenizer,
            task.string_format("words", "key"),
            task.string_format(form, "value"),
            " {key}:",
            ";",
            "",
            "any",
        ).values
        free = sorted((corpus.free(string) for string in pool.strings), reverse=True)
        limit = MAX_GUARD if free[ENOUGH - 1] >= MAX_GUARD else free[ENOUGH - 1]
        assert len(values) >= 4
        assert min(map(corpus.free, values)) >= limit


def test_lines_of_any_length_are_made_of_the_strings_of_a_shorter_one(texts):
    task = choose_task({**LINES, "digits": 3}, "task").create(texts)
    for index in range(6):
        short, long = (lines_of(task, ("needles", "words", "numbers"), index, n) for n in (128, 512))
        assert set(short[0]) <= set(long[0])
        assert set(short[1]) <= set(long[1])
        assert len(long[1]) > 3 * len(short[1])


def test_pairs_of_few_characters_are_absent_from_the_text_too(texts):
    """All of a share's pairs, not those that are queried alone."""
    task = choose_task({"type": "mqar", "digits": 3, "share": 0.4, "n_queries": 1}, "task").create(texts)
    for index in range(12):
        episode = task.episode(Factors(Formats(*PLAIN), 600, 0.5, index))
        window = texts.stream("corpus").take(episode.haystack_start, episode.haystack_tokens)
        text, pairs = texts.tokenizer.decode(window), LINE.findall(texts.tokenizer.decode(episode.ids))
        assert len(pairs) > 12
        assert not [value for _, value in pairs if value in text]


def test_equal_draws_of_another_pool_say_nothing_of_rarity(texts):
    """The test above can fail: needles from the freest strings, other lines from all of them."""
    task = choose_task({**LINES, "digits": 2}, "task").create(texts)
    count, ranks = texts.stream("corpus").count, []
    for i in range(N):
        _, values, query = lines_of(task, ("needles", "words", "numbers"), i)
        draw = Draws("any", i)("value").permutation(90)[: len(values)]
        ranks.append(rank_of(query.answer, [str(10 + int(v)) for v in draw], count))
    assert deviation(ranks) > ALARM
