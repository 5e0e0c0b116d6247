"""The phone book is `niah` among look-alike lines: same episodes, a book's formats, chance by counting its
entries."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.errors import ConfigError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.niah import NIAH
from lcprobe.tasks.phonebook import PhoneBook
from tests.tasks.checks import TOKENIZERS, build_task, check_no_giveaway, check_shortest, check_sound, materials_for

BOOK = Formats("needles", "words", "numbers")


def test_sound_in_three_tokenizers_and_equal_to_niah(materials):
    for which in TOKENIZERS:
        m = materials_for(materials, which)
        book, niah = build_task(PhoneBook, m), build_task(NIAH, m, n_keys=4, template="line", word_pairs=True)
        for index in range(6):
            for control in book.axes.controls:
                f = Factors(BOOK, 150 + 97 * index, index / 5, index, control)
                e = check_sound(book, m.tokenizer, f)
                assert np.array_equal(e.ids, niah.episode(f).ids)


def test_the_whole_context_is_entries_and_chance_counts_them(materials):
    book = build_task(PhoneBook, materials)
    for length in (200, 1000, 5000):
        e = book.episode(Factors(BOOK, length, 0.5, 2))
        text = materials.tokenizer.decode(e.ids[: e.queries[0].start])
        rest, entries = re.subn(r" [a-z]+-[a-z]+: \d{7};", "", text)
        assert e.queries[0].chance == 1 / entries
        assert text.count(e.queries[0].answer) == 1
        assert len(rest) < 150, "BOS, the question, and words where no entry fits"


def test_grids_collapse_to_the_formats_of_a_book(materials):
    assert build_task(PhoneBook, materials).axes.fitted(Formats("corpus", "uuids", "hex")) == BOOK


def test_blind_guesses_score_the_stated_chance(materials):
    book = build_task(PhoneBook, materials)
    # a depth each, evenly: at depth 0 the first entry is the target by definition
    episodes = [book.episode(Factors(BOOK, 200, (i * 0.6180339887498949) % 1, i)) for i in range(500)]
    check_no_giveaway([(e, e.queries[0]) for e in episodes], materials.tokenizer)


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        least = check_shortest(build_task(PhoneBook, materials_for(materials, which)), Factors(BOOK, 1, 0.5, 5))
        assert least < 110


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.digits: given 3; allowed: 5 \.\. 15"):
        build_task(PhoneBook, materials, digits=3)
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'corpus'; allowed: needles$"):
        build_task(PhoneBook, materials).episode(
            replace(Factors(BOOK, 300, 0.5, 0), formats=Formats("corpus", "words", "numbers"))
        )
