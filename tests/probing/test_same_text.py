"""Sets of tasks over the same text: samples are replaced for all tokenizers or for none, are built once, and are kept
apart from those of other sets of tokenizers.
"""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.errors import EpisodeError
from lcprobe.lengths import in_tokens
from lcprobe.probing import same_text as same_text_module
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet, task_sets
from lcprobe.probing.units import Unit
from lcprobe.schema import build
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.parts.same_text import NotSameText, in_tokens_of
from tests.probing.test_cache import all_same
from tests.tasks.checks import materials_for
from validation.tokenizers import llama_like

TASKS = {
    "multikey": {"type": "niah", "n_keys": 3},
    "separate": {"type": "niah", "n_keys": 3, "n_queries": 2, "separate": True},
}
UNIT = Unit("multikey", Formats("corpus", "words", "numbers"), 300, "none", 2, 3)
NAMES = ("shipped", "llama", "unigram")


def sets_of(materials, cache=None, names=NAMES, equal_length="text", tasks=TASKS) -> list[TaskSet]:
    config = build(ProbeConfig, {"tasks": tasks, "equal_length": equal_length}, "probe")
    return task_sets(config, [materials_for(materials, name) for name in names], names, cache)


def texts(tasks: TaskSet, unit: Unit = UNIT) -> list[str]:
    return [tasks.text_of(episode).digest for episode in tasks.episodes(unit)]


@pytest.mark.parametrize("task", TASKS)
def test_every_tokenizer_has_the_same_text_and_the_reference_the_asked_length(task, materials):
    unit = replace(UNIT, task=task)
    first, *others = sets_of(materials)
    assert all(len(episode.ids) == unit.length for episode in first.episodes(unit))
    for tasks in others:
        assert texts(tasks, unit) == texts(first, unit)
        assert tasks.tokenizer.digest != first.tokenizer.digest


def test_with_tokens_every_tokenizer_has_episodes_of_its_own_as_without_others(materials):
    for name, tasks in zip(NAMES, sets_of(materials, equal_length="tokens"), strict=True):
        alone = TaskSet(build(ProbeConfig, {"tasks": TASKS}, "probe"), materials_for(materials, name))
        assert tasks.facts(UNIT) == alone.facts(UNIT)
        assert all_same(tasks.episodes(UNIT), alone.episodes(UNIT))
        assert {len(episode.ids) for episode in tasks.episodes(UNIT)} == {UNIT.length}


def test_a_sample_that_one_tokenizer_cannot_represent_is_replaced_for_all(materials, monkeypatch):
    before = [texts(tasks) for tasks in sets_of(materials)]
    refused = sets_of(materials)[0].episodes(UNIT)[1].digest

    def fussy(other, episode, reference):
        if other is llama_like() and episode.digest == refused:
            raise NotSameText("is fussy")
        return in_tokens_of(other, episode, reference)

    monkeypatch.setattr(same_text_module, "in_tokens_of", fussy)
    after = [texts(tasks) for tasks in sets_of(materials)]
    assert after[0] == after[1] == after[2]
    changed = [i for i, (a, b) in enumerate(zip(before[0], after[0], strict=True)) if a != b]
    assert changed == [1], "the other samples stay"


def test_a_text_that_one_tokenizer_can_never_represent_names_it_before_anything_is_built(materials):
    """Unigram loses the line breaks of code."""
    sets = sets_of(materials, names=("shipped", "unigram"))
    grid = build(Grid, {"lengths": ["300t"], "haystack": ["python"], "n": 2}, "grid")
    with pytest.raises(
        EpisodeError, match=r"^probe.equal_length: given 'text'; .*niah python/words/numbers.*unigram"
    ):
        sets[0].plan([grid])
    assert sets_of(materials, names=("shipped", "unigram"), equal_length="tokens")[0].plan([grid]).units


def test_the_plan_counts_tokens_of_the_reference(materials):
    first, second = sets_of(materials, names=("llama", "shipped"))
    grid = Grid(lengths=in_tokens(20, 300), n=2)
    assert [unit.length for unit in first.plan([grid]).units] == [300, 300]
    assert first.plan([grid]).units == second.plan([grid]).units
    assert {str(left_out).split(" ")[1] for left_out in first.plan([grid]).too_short} == {"corpus/words/numbers:"}


def test_episodes_on_disk_are_those_of_these_tokenizers(materials, tmp_path, monkeypatch):
    cache = EpisodeCache(tmp_path, 10**8)
    built = [tasks.episodes(UNIT) for tasks in sets_of(materials, cache)]
    assert len(list(tmp_path.iterdir())) == len(NAMES), "one text is built once for all"
    other_sets = [sets_of(materials, cache, names) for names in (NAMES[:2], NAMES[:1], NAMES[::-1])]
    digests = [tasks.digest("multikey", "corpus") for sets in other_sets for tasks in sets]
    digests += [tasks.digest("multikey", "corpus") for tasks in sets_of(materials, cache)]
    assert len({*digests}) == len(digests)
    monkeypatch.setattr(same_text_module.SameText, "episodes", lambda *_: pytest.fail("built again"))
    for tasks, episodes in zip(sets_of(materials, cache), built, strict=True):
        assert all_same(tasks.episodes(UNIT), episodes)


def test_values_to_choose_from_are_the_same_strings(materials):
    first, second, _ = sets_of(materials)
    for a, b in zip(first.episodes(UNIT), second.episodes(UNIT), strict=True):
        for p, q in zip(a.queries, b.queries, strict=True):
            assert [first.tokenizer.text_of(c) for c in p.candidates] == [
                second.tokenizer.text_of(c) for c in q.candidates
            ]
            assert not np.array_equal(p.candidates[0], q.candidates[0])
