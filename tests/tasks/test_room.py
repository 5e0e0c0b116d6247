"""The place at which an answer begins tells nothing about it: the first answer of any task begins at the same token
whichever candidate it is, and every candidate would have had the room.
"""

import pytest

from lcprobe.tasks.episode import Factors
from lcprobe.tasks.parts.distractor_lines import LineSample
from lcprobe.tasks.parts.layout import Question, Sample
from lcprobe.tasks.parts.placement import UniqueStrings
from lcprobe.tasks.parts.question_pool import MAX_ANSWER
from tests.tasks.test_assembly import built_task, enough
from validation.variants import variants

pytestmark = pytest.mark.usefixtures("small_pools")
N = 6
SWAPPED = [
    name for name in variants() if not name.removeprefix("ruler/").startswith(("cwe", "fwe", "copying", "qa_"))
]
"""Tasks whose target value is one of several that are drawn together, or a label in a drawn order."""
OF_EQUAL_SIZE = ("cwe", "ruler/cwe", "fwe", "ruler/fwe", "copying_gram", "copying_gram_long", "parity", "s3", "s5")
"""Tasks in which nothing that varies has another number of tokens."""
IN_A_ROW = ("niah_separate", "phonebook_four", "ruler/niah_multiquery", "mqar", "mqar_short")


def first_queries(task, formats, length):
    return [task.episode(Factors(formats, length, 0.4, index)).queries[0] for index in range(N)]


def swap(patch, owner, method, one, other):
    """Two of the strings that a method returns change places, if they are values."""
    original = getattr(owner, method)

    def changed(self, *args):
        strings = original(self, *args)
        if owner is LineSample or args[-1] == "formats.haystack" or args[3] in ("formats.value", "places"):
            strings[one], strings[other] = strings[other], strings[one]
        return strings

    patch.setattr(owner, method, changed)


@pytest.mark.parametrize("name", SWAPPED)
def test_the_first_answer_begins_at_the_same_token_whichever_value_is_the_target(name, all_haystacks, monkeypatch):
    task, formats = built_task(name, all_haystacks["shipped"])
    length = enough(task, formats) + 60
    before = first_queries(task, formats, length)
    for owner, method in ((LineSample, "values"), (UniqueStrings, "draw"), (UniqueStrings, "choose")):
        swap(monkeypatch, owner, method, 0, -1)
    balanced = Sample.balanced
    monkeypatch.setattr(Sample, "balanced", lambda self, n: (balanced(self, n) + 1) % n)
    after = first_queries(task, formats, length)
    assert any(a.answer != b.answer for a, b in zip(before, after, strict=True)) or name == "niah_one_key"
    for a, b in zip(before, after, strict=True):
        assert a.start == b.start or a.key.split()[0] != b.key.split()[0], "another ordinal may have other tokens"


@pytest.mark.parametrize("name", IN_A_ROW)
def test_nor_does_it_tell_which_keys_are_queried_after_the_first(name, all_haystacks, monkeypatch):
    """Without the room of the longest question, the target key would be known to be one of fewer."""
    task, formats = built_task(name, all_haystacks["shipped"])
    length, queried = enough(task, formats) + 60, task.config.n_queries
    before = first_queries(task, formats, length)
    swap(monkeypatch, LineSample, "keys", 1, queried)
    after = first_queries(task, formats, length)
    assert [q.key for q in before] == [q.key for q in after]
    assert [q.start for q in before] == [q.start for q in after]


@pytest.mark.parametrize("name", OF_EQUAL_SIZE)
def test_or_it_is_the_same_in_all_samples(name, all_haystacks):
    task, formats = built_task(name, all_haystacks["shipped"])
    assert len({q.start for q in first_queries(task, formats, enough(task, formats) + 60)}) == 1


@pytest.mark.parametrize("name", ["qa_squad", "qa_hotpot"])
def test_answers_from_files_have_the_room_of_the_longest_that_is_taken(name, all_haystacks):
    task, formats = built_task(name, all_haystacks["shipped"])
    length = enough(task, formats) + 60
    assert {length - q.start for q in first_queries(task, formats, length)} == {MAX_ANSWER}


@pytest.mark.parametrize("name", variants())
def test_every_candidate_would_have_had_the_room(name, all_haystacks):
    """So that a model with a table of positions scores every candidate at its training length."""
    for which in ("shipped", "llama"):
        task, formats = built_task(name, all_haystacks[which])
        length = enough(task, formats)
        for control in task.axes.controls:
            for index in range(N):
                e = task.episode(Factors(formats, length, 0.4, index, control))
                assert all(q.start + len(c) <= len(e.ids) for q in e.queries for c in q.candidates)


def test_an_answer_longer_than_its_room_is_a_mistake_of_the_task(materials):
    task, formats = built_task("niah", materials)
    layout = task.layout

    def wrong(sample):
        made = layout(sample)
        return made.__class__(made.cuts, [made.questions[0]._replace(longest=1)])

    task = type(task)(task.config, materials)
    task.layout = wrong
    with pytest.raises(ValueError, match="more than the longest answer"):
        task.episode(Factors(formats, 300, 0.5, 0))
    assert Question("k", "v", materials.tokenizer.piece(" k"), materials.tokenizer.piece(" v"), 9).room == 10


@pytest.mark.parametrize("name", ["niah", "niah_question_first", "niah_lines", "niah_values", *IN_A_ROW])
def test_nor_which_key_is_queried(name, all_haystacks, monkeypatch):
    """Keys have different tokens: of two lines the shorter one was the target in 55 %, as its question left room."""
    task, formats = built_task(name, all_haystacks["shipped"])
    length = enough(task, formats) + 60
    before = first_queries(task, formats, length)
    swap(monkeypatch, LineSample, "keys", 0, 1)
    after = first_queries(task, formats, length)
    assert all(a.key != b.key for a, b in zip(before, after, strict=True))
    assert [q.start for q in before] == [q.start for q in after]
