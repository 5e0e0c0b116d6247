"""Protocols: ours is the probe's exact match, each condition changes what it says, and prompts are read once."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.errors import EpisodeError
from lcprobe.probing.explain.conditions import CAUSES, FIELDS, Situation, conditions, pairs
from lcprobe.probing.explain.config import CAUSE_NAMES, ExplainConfig
from lcprobe.probing.explain.measure import Bench, Measured, NotMeasured
from lcprobe.probing.explain.prompts import Subject, prompts_of, tokens_per_unit
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.probing.explain.wrapping import TEMPLATES, WRAPPERS, template_names
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.probing.units import place_in_stratum
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.tokenizer import load_tokenizer

LENGTH = 160
NOISE = Formats("noise", "words", "numbers")
SHIPPED_1024 = load_tokenizer("shipped-1024")


def subject_of(materials, task, formats=NOISE, name="mine"):
    return Subject(name, choose_task(task, "task").create(materials), formats, materials)


@pytest.fixture(scope="module")
def subject(materials):
    return subject_of(materials, {"type": "niah", "n_keys": 2, "template": "sentence", "digits": 3})


class Echo:
    """Continues every prompt with the same ids, and counts what it is asked to read."""

    def __init__(self, ids):
        self.ids, self.read = ids, 0

    def __call__(self, prompts, steps):
        self.read += len(prompts)
        return [self.ids[:n] for n in steps]


def text(prompt, tokenizer):
    return tokenizer.decode(np.array(prompt.ids))


@pytest.mark.slow
def test_ours_is_the_exact_match_of_the_probe_on_every_sample(trained, tasks):
    task, formats = tasks.by_name["multikey"], Formats("words", "words", "numbers")
    continuer = Continuer(trained, "cpu", 64, 4096)
    bench = Bench(
        lambda p, n: continuer.greedy(p, n, lambda *_: False), Subject("m", task, formats, tasks.materials), 60
    )
    measured = bench.measure([Protocol(), Protocol(scorer="substring")], 100)
    episodes = [task.episode(Factors(formats, 100, place_in_stratum(i), i)) for i in range(60)]
    items = [Item(episode, query) for episode in episodes for query in episode.queries]
    exact = [s.exact for s in ModelScorer(trained, tasks.materials.tokenizer, "cpu", 64).score(items)]
    assert measured[Protocol()].scores.tolist() == [float(right) for right in exact]
    assert 0.03 < np.mean(exact) < 1, "the comparison needs hits and misses"
    assert (measured[Protocol(scorer="substring")].scores >= measured[Protocol()].scores).all()


def test_what_differs_in_the_scorer_only_is_read_once(subject):
    echo = Echo(subject.tokenizer.encode(" 123 and more words of it").tolist())
    bench = Bench(echo, subject, 8)
    scorers = [Protocol(scorer=name, budget=n) for name in ("substring", "exact", "first_word") for n in (4, 8)]
    bench.measure([Protocol(), *scorers, Protocol(combine="any")], LENGTH)
    assert echo.read == 8
    bench.measure([Protocol(bos=0)], LENGTH)
    assert echo.read == 16


def test_lengths_are_what_each_condition_says(subject):
    tokenizer, budget = subject.tokenizer, 40
    ours = prompts_of(Protocol(), subject, LENGTH, 6)
    assert {len(p.ids) + len(p.answer) for p in ours} == {LENGTH}
    assert {len(p.ids) for p in prompts_of(Protocol(room="none"), subject, LENGTH, 6)} == {LENGTH}
    inside = prompts_of(Protocol(room="budget", budget=budget), subject, LENGTH, 6)
    assert {len(p.ids) for p in inside} == {LENGTH - budget}
    other = prompts_of(Protocol(counted="shipped-1024"), subject, LENGTH, 12)
    counted = [len(SHIPPED_1024.encode(tokenizer.decode(np.array(p.ids[1:])))) for p in other]
    assert abs(np.mean(counted) - LENGTH) < 0.05 * LENGTH < 0.05 * np.mean([len(p.ids) for p in ours]) * 2
    words = prompts_of(Protocol(counted="words"), subject, 80, 12)
    assert abs(np.mean([len(text(p, tokenizer).split()) for p in words]) - 80) < 8
    assert tokens_per_unit("words", subject, LENGTH) > 1 > 1 / tokens_per_unit("characters/4", subject, LENGTH) / 4


def test_conditions_share_key_value_and_question(subject):
    ours = prompts_of(Protocol(), subject, LENGTH, 5)
    for protocol in (
        Protocol(room="none"),
        Protocol(counted="words"),
        Protocol(wrapper="ruler"),
        Protocol(depths=(0.0,)),
    ):
        assert [p.references for p in prompts_of(protocol, subject, LENGTH, 5)] == [p.references for p in ours]
    assert [p.references for p in prompts_of(Protocol(), subject, LENGTH, 5, first=5)] != [p.references for p in ours]


def test_begin_tokens_are_as_many_as_said(subject):
    bos = subject.tokenizer.bos_id
    ours = prompts_of(Protocol(), subject, LENGTH, 3)
    for times in (0, 1, 2):
        for one, prompt in zip(ours, prompts_of(Protocol(bos=times), subject, LENGTH, 3), strict=True):
            assert prompt.ids == [bos] * times + one.ids[1:]


@pytest.mark.parametrize("name", template_names()[1:])
def test_templates_have_the_cue_where_they_say(subject, name):
    for prompt, own in zip(
        prompts_of(Protocol(template=name), subject, LENGTH, 4),
        prompts_of(Protocol(), subject, LENGTH, 4),
        strict=True,
    ):
        written, frame = text(prompt, subject.tokenizer), TEMPLATES[name.removesuffix("+")]
        context, between, after = written.rpartition(frame.between.rstrip(" "))
        cue = text(own, subject.tokenizer).rpartition(" The secret value for ")[2]
        assert between
        assert context.removeprefix("<|bos|>").startswith(frame.before)
        if name.endswith("+"):
            assert after == ""
            assert context.endswith("The secret value for " + cue)
        else:
            assert after.strip() == "The secret value for " + cue
        assert len(prompt.ids) <= len(own.ids), "what is around the text takes the place of haystack"


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_surround_the_context(subject, name):
    (prompt,) = prompts_of(Protocol(wrapper=name), subject, LENGTH, 1)
    written = text(prompt, subject.tokenizer)
    assert WRAPPERS[name].before.strip() in written
    assert "{key}" not in written
    question = WRAPPERS[name].between.partition("{key}")[0]
    assert "The secret value for" in written.rpartition(question.strip() or question)[2]


@pytest.mark.parametrize("task", [
    {"type": "vt"}, {"type": "cwe"}, {"type": "fwe"}, {"type": "niah", "n_keys": 3, "n_queries": 3},
    {"type": "niah", "n_keys": 2, "n_values": 2}, {"type": "niah", "n_keys": 2, "question": "start"},
])  # fmt: skip
def test_every_kind_of_task_can_be_measured(materials, task):
    choice = choose_task(task, "task").create(materials)
    formats = choice.axes.fitted(Formats("noise", "words", "numbers"))
    if "words" in choice.axes.value and "numbers" not in choice.axes.value:
        formats = replace(formats, value="words")
    own = Subject("mine", choice, formats, materials)
    bench = Bench(Echo([5, 6, 7, 8]), own, 4)
    found = conditions(Situation(Protocol(), own, answers=2))
    results = bench.measure([c.protocol for c in found], 600)
    failed = {c.name: r.reason for c in found if isinstance(r := results[c.protocol], NotMeasured)}
    assert not {name for name in failed if not name.startswith("aggregation: haystack needles")}, failed
    assert all(len(r.scores) == 4 for r in results.values() if isinstance(r, Measured))


def test_prompts_are_cut_on_the_left_and_followed_by_a_space(subject):
    own = prompts_of(Protocol(), subject, LENGTH, 4)
    for cut, kept in (("1/2", None), ("3/4", None), ("budget", LENGTH - 40)):
        for prompt, whole in zip(prompts_of(Protocol(cut=cut, budget=40), subject, LENGTH, 4), own, strict=True):
            share = {"1/2": 0.5, "3/4": 0.75}.get(cut)
            n = kept or round(share * len(whole.ids))
            assert prompt.ids == whole.ids[-n:]
            assert subject.tokenizer.bos_id not in prompt.ids
    for prompt, whole in zip(prompts_of(Protocol(tail="space"), subject, LENGTH, 4), own, strict=True):
        assert text(prompt, subject.tokenizer) == text(whole, subject.tokenizer) + " "
        assert prompt.references == whole.references
    with pytest.raises(EpisodeError, match="more than the budget"):
        prompts_of(Protocol(cut="budget", budget=LENGTH), subject, LENGTH, 4)


def test_one_key_is_one_needle_with_the_same_question(subject):
    fact = re.compile(r"The secret value for \S+ is \d")
    one, own = (prompts_of(Protocol(keys=k), subject, LENGTH, 4) for k in (1, 0))
    assert [len(fact.findall(text(p, subject.tokenizer))) for p in one] == [1] * 4
    assert [len(fact.findall(text(p, subject.tokenizer))) for p in own] == [2] * 4
    assert [p.references for p in one] == [p.references for p in own]
    assert [len(p.ids) for p in one] == [len(p.ids) for p in own]


def test_values_of_one_key_are_references_of_their_own(materials):
    own = subject_of(materials, {"type": "niah", "n_keys": 2, "n_values": 3, "digits": 3})
    assert {len(p.references) for p in prompts_of(Protocol(), own, 300, 4)} == {3}


def test_a_file_of_prompts_is_read_as_it_is(subject, tmp_path):
    rows = [{"input": f"The code is {i}{i}.", "answer_prefix": " It is", "outputs": [f"{i}{i}"]} for i in range(5)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    made = prompts_of(Protocol(samples=str(path)), subject, LENGTH, 3)
    assert [text(p, subject.tokenizer) for p in made] == [f"<|bos|>The code is {i}{i}. It is" for i in range(3)]
    assert [p.references for p in made] == [(f"{i}{i}",) for i in range(3)]


def test_what_cannot_be_measured_says_why(subject):
    bench = Bench(Echo([5, 6, 7]), subject, 4)
    lm_eval, short = Protocol(samples="lm-eval"), Protocol(room="budget", budget=150)
    results = bench.measure([Protocol(), lm_eval, short], LENGTH)
    assert isinstance(results[Protocol()], Measured)
    assert "lm-eval has" in results[lm_eval].reason
    assert "tokens" in results[short].reason or "length" in results[short].reason


def test_what_is_described_is_no_cause(subject):
    for cause, field in FIELDS.items():
        names = {c.cause for c in conditions(Situation(Protocol(), subject, frozenset([field])))}
        assert cause not in names
    assert set(CAUSES) == set(FIELDS) == set(CAUSE_NAMES)
    singles = conditions(Situation(Protocol(), subject))
    assert all(c.protocol != Protocol() for c in singles)
    assert len({c.protocol for c in singles}) == len(singles), "what comes to one protocol is one change"
    stated = conditions(Situation(Protocol(room="none"), subject, frozenset({"room"})))
    assert {c.protocol.room for c in stated} == {"none"}, "no cause changes what is stated"
    assert all(c.cause.startswith("scorer + ") for c in pairs(Situation(Protocol(), subject), singles))


def test_a_description_sets_the_protocol():
    given = {
        "task": "niah",
        "length": [64, 128],
        "theirs": [0.5, 0.25],
        "scorer": "substring",
        "budget": 64,
        "bos": 0,
    }
    wanted = build(ExplainConfig, given, "")
    assert Protocol(**wanted.described) == Protocol(scorer="substring", budget=64, bos=0)
