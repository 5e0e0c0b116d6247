"""Sample i has the same keys, values and place in the haystack at every length, in every haystack and beside every other
format, and none of its strings is in the text that it is hidden in."""

from dataclasses import replace

import pytest

from lcprobe.errors import EpisodeError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import HAYSTACKS, NOTHING
from lcprobe.tasks.parts import placement
from lcprobe.tasks.parts.layout import Sample
from lcprobe.tasks.parts.placement import MAX_GUARD
from lcprobe.tasks.presets import choose_task

pytestmark = pytest.mark.usefixtures("small_pools")
TASKS = {
    "niah": {"type": "niah", "n_keys": 4, "n_queries": 3},
    "values": {"type": "niah", "n_keys": 2, "n_values": 2},
    "mqar": {"type": "mqar", "pairs": 6, "n_queries": 3},
    "ordered": {"type": "ordered"},
    "vt": {"type": "vt"},
    "copying": {"type": "copying", "ask": "gram", "digits": 5},
    "semantic": {"type": "semantic"},
    "qa": {"type": "qa", "hops": 2},
}
LENGTHS = (500, 1200, 5000, 40_000)
N = 6


def asked(task, formats, length, index):
    """Keys and answers of a sample; of all values of one key, in any order: their places may swap."""
    episode = task.episode(Factors(formats, length, 0.5, index))
    return [(query.key, sorted(query.answer.split(" and "))) for query in episode.queries]


def built(name, materials, **changed):
    return choose_task({**TASKS[name], **changed}, "task").create(materials)


@pytest.mark.parametrize("name", TASKS)
def test_one_sample_has_one_question_at_every_length_and_in_every_haystack(all_haystacks, name):
    task = built(name, all_haystacks["shipped"])
    first = task.axes.fitted(Formats("corpus", "words", "numbers"))
    haystacks = [haystack for haystack in HAYSTACKS if haystack in task.axes.levels("haystack")]
    assert len(haystacks) >= 8
    for index in range(N):
        every = {
            (haystack, length): asked(task, replace(first, haystack=haystack), length, index)
            for haystack in haystacks
            for length in LENGTHS
            if haystack != "needles" or length == LENGTHS[0]  # there are too few nouns for longer ones
        }
        one = every["corpus", LENGTHS[0]]
        assert not {cell: given for cell, given in every.items() if given != one}, one


@pytest.mark.parametrize("kinds", [("words", "words"), ("numbers", "hex"), ("uuids", "words"), ("hex", "numbers")])
def test_keys_do_not_depend_on_values_nor_values_on_keys(all_haystacks, kinds):
    materials = all_haystacks["shipped"]
    task = built("niah", materials)
    for index in range(N):
        cells = [
            asked(task, Formats(h, *kinds), n, index) for h in ("corpus", "python", "noise") for n in (600, 9000)
        ]
        assert all(cell == cells[0] for cell in cells)
        keys = [key for key, _ in asked(task, Formats("corpus", kinds[0], "numbers"), 600, index)]
        values = [value for _, value in asked(task, Formats("corpus", "uuids", kinds[1]), 600, index)]
        assert [key for key, _ in cells[0]] == keys
        assert [value for _, value in cells[0]] == values


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_strings_that_every_text_has_are_the_same_at_every_length_that_has_room_for_them(all_haystacks, digits):
    """A corpus without one- and two-digit numbers for 128K tokens does not exist: those of the freest that a longer
    text has give way to the next."""
    task, told, changed = built("niah", all_haystacks["shipped"], n_keys=1, n_queries=1, digits=digits), 0, 0
    for index in range(12):
        cells, values = {}, {}
        for haystack in ("corpus", "noise", "words"):
            for length in LENGTHS:
                formats = Formats(haystack, "words", "numbers")
                try:
                    cells[haystack, length] = asked(task, formats, length, index)
                except EpisodeError:
                    assert haystack == "corpus", "no number is in the other two"
        (key,) = {own[0][0] for own in cells.values()}
        values = {cell: own[0][1][0] for cell, own in cells.items()}
        (value,) = {own for (haystack, _), own in values.items() if haystack != "corpus"}
        factors = Factors(Formats("corpus", "words", "numbers"), LENGTHS[0], 0.5, index)
        corpus = Sample(task.seed_names, factors, 0, task.materials).places[0]
        for (haystack, length), own in values.items():
            reach = min(length + placement.MAX_SHIFT, len(corpus.stream))
            absent = corpus.stream.free_run(value, corpus.offset) >= reach
            assert (own == value) == (haystack != "corpus" or absent), key
            changed += own != value
        told += ("corpus", LENGTHS[0]) in cells
    assert digits == 1 or told
    assert (digits < 3) == bool(changed)


def test_no_string_is_in_the_text_it_is_hidden_in(all_haystacks):
    """Of few characters too, where the strings of other cells are in the text."""
    materials = all_haystacks["shipped"]
    for haystack in ("corpus", "logs", "python"):
        for digits, length in ((3, 400), (7, 3000)):
            task = built("niah", materials, digits=digits, n_queries=1)
            for index in range(N):
                try:
                    episode = task.episode(Factors(Formats(haystack, "words", "numbers"), length, 0.5, index))
                except EpisodeError:  # all of them are
                    assert digits == 3
                    continue
                query = episode.queries[0]
                text = materials.tokenizer.decode(episode.ids[: query.start])
                assert (text.count(query.answer), text.count(query.key)) == (1, 2)


def test_the_guard_reaches_over_the_longest_shipped_length():
    assert MAX_GUARD >= (128 << 10) + placement.MAX_SHIFT
    assert NOTHING not in HAYSTACKS
