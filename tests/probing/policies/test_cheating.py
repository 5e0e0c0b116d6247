"""No-retrieval baselines: policies observe and print what they should, a leak is detected, and no shipped task has one."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.leakage import LeakageCell
from lcprobe.analysis.stats.multiplicity import ALPHA
from lcprobe.cli.commands import evaluate_main
from lcprobe.files import read_json
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES, PolicyScorer, score_policies
from lcprobe.probing.policies.observation import TaskStatistics, collect_statistics, observe, pattern_of
from lcprobe.probing.scoring import Item, scored_text
from lcprobe.probing.units import Unit
from lcprobe.schema import build
from lcprobe.seeds import Draws
from lcprobe.studies.evaluation.leakage import highest, pivot, run_policies
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.parts import distractor_lines
from lcprobe.tasks.parts.distractor_lines import LineSample
from lcprobe.tasks.parts.layout import Question
from tests.tiny import write_config
from validation.attacks.peers import NOT_APPLICABLE, PEER_POLICIES

PROSE = Formats("corpus", "words", "numbers")


def task_set(materials, **tasks):
    return TaskSet(build(ProbeConfig, {"tasks": tasks}, "probe"), materials)


def item_of(tasks, name="multikey", formats=PROSE, length=200, depth=0.5, index=0, query=0):
    episode = tasks.by_name[name].episode(Factors(formats, length, depth, index))
    return Item(episode, episode.queries[query])


def answer_of(policy, item, tasks, stats=None):
    scorer = PolicyScorer(policy, tasks.materials.tokenizer, stats or TaskStatistics(), {})
    return scorer.score([item])[0].prediction


def in_order(item, tokenizer):
    """The values of a needle episode, in order of appearance, read off its needles."""
    text = [tokenizer.decode(item.episode.ids[a:b]).strip(" .;") for a, b in item.episode.needles]
    return [needle.rpartition(" ")[2] for needle in text]


def test_policies_print_what_they_are_named_for(tasks):
    tok = tasks.materials.tokenizer
    for index in range(12):
        item = item_of(tasks, index=index, depth=(index % 5) / 4)
        values = in_order(item, tok)
        answers = {name: answer_of(name, item, tasks) for name in POLICIES}
        assert answers["first_distinct"] == answers["dump_all"] == answers["last_n"] == values[0], (
            "three values: the last three are all"
        )
        assert answers["last_distinct"] == answers["most_recent"] == values[-1]
        assert answers["random_value"] in values
        assert answers["no_needle"] in set(values) - {item.query.answer}
        assert answers["majority_class"] in values, "without statistics any value"


def test_statistics_are_those_of_other_samples(tasks):
    tok = tasks.materials.tokenizer
    items = [item_of(tasks, index=index, depth=1.0) for index in range(20)]
    stats = collect_statistics(items, tok)
    assert stats.from_back == {0: Counter({0: 20})}, "at depth 1 the target value comes last"
    assert sum(stats.answers[0].values()) == 20
    assert stats.patterns == {"99"}
    late = item_of(tasks, index=99, depth=0.0)
    assert answer_of("majority_place_from_back", late, tasks, stats) == in_order(late, tok)[-1]
    frequent = TaskStatistics(answers={0: Counter({"77": 3, "12": 1})})
    assert answer_of("majority_class", late, tasks, frequent) == "77"
    assert answer_of("answer_prior", late, tasks, frequent) in in_order(late, tok), "77 is no candidate here"


def test_the_observation_is_the_same_whichever_value_is_the_target(tasks):
    """Policies observe which strings are values, but not their order among the candidates."""
    tok = tasks.materials.tokenizer
    item = item_of(tasks)
    one, backwards = item.query, tuple(reversed(item.query.candidates))
    other = Item(
        replace(item.episode, queries=(replace(one, candidates=backwards),)), replace(one, candidates=backwards)
    )
    other = Item(other.episode, other.episode.queries[0])
    a, b = observe(item, tok, TaskStatistics()), observe(other, tok, TaskStatistics())
    assert a.values == b.values
    assert sorted(a.pool) == sorted(b.pool)
    first = [
        observe(item_of(tasks, index=i), tok, TaskStatistics()).pool.index(item_of(tasks, index=i).query.answer)
        for i in range(60)
    ]
    assert set(first) == {0, 1, 2}


def test_more_values_than_candidates_are_recognised_by_their_pattern(materials):
    tasks = task_set(materials, many={"type": "niah", "n_keys": 4, "template": "line", "digits": 4})
    item = item_of(tasks, "many", Formats("needles", "words", "numbers"), 600)
    assert len(item.query.candidates) == 32
    obs = observe(item, materials.tokenizer, TaskStatistics())
    assert len(obs.values) == round(1 / item.query.chance) > 32
    assert sorted(obs.pool) == sorted(v.text for v in obs.values)
    assert [pattern_of(x) for x in ("4071932", "3f-9a", "amber", "a b")] == ["9999999", "x-x", "x", "x x"]


def test_a_single_candidate_is_not_observed(materials):
    tasks = task_set(materials, one={"type": "niah", "n_keys": 1})
    item = item_of(tasks, "one")
    unsure = replace(item.query, chance=0.1)
    hidden = Item(replace(item.episode, queries=(unsure,)), unsure)
    assert observe(item, materials.tokenizer, TaskStatistics()).pool == (item.query.answer,)
    assert observe(hidden, materials.tokenizer, TaskStatistics()).pool == ()
    assert observe(item, materials.tokenizer, TaskStatistics(), without_needle=True).pool == (), (
        "nor without the needle"
    )


def test_scores_of_a_printed_text(tasks):
    tok, item = tasks.materials.tokenizer, item_of(tasks)
    wrong = next(v for v in in_order(item, tok) if v != item.query.answer)
    right, other, nothing, strange = (scored_text(item, t, tok) for t in (item.query.answer, wrong, "", "tree"))
    assert (right.exact, right.rank, right.distractor_hit, right.token_accuracy) == (True, 1, False, 1.0)
    assert (other.exact, other.distractor_hit) == (False, True)
    assert other.rank >= 2 or right.first_token == other.first_token
    assert (nothing.exact, nothing.prediction, nothing.token_accuracy) == (False, "", 0.0)
    assert (strange.exact, strange.distractor_hit) == (False, False)
    assert scored_text(item, f"{item.query.answer} and more", tok).exact, "the first answer counts"


class AtCentres(Unit):
    """The same cells with the needle at the centre of each stratum, as in a grid of fixed depths."""

    def samples(self):
        return [(centre, replace(factors, depth=centre)) for centre, factors in super().samples()]


@pytest.mark.parametrize(
    ("task", "formats", "found"),
    [
        ({"type": "niah", "n_keys": 4, "word_pairs": True}, PROSE, {"nearest_to_a_depth"}),
        ({"type": "phonebook"}, Formats("needles", "words", "numbers"), {"at_line_depth"}),
    ],
)
def test_targets_at_fixed_depths_are_found_and_those_at_drawn_ones_are_not(materials, task, formats, found):
    for kind in (AtCentres, Unit):
        tasks = task_set(materials, it=task)
        table, _ = run_policies(tasks, [kind("it", formats, 900, "none", 5, 30)], 1, sorted(found))
        assert {c.policy for c in table if c.verdict == "EXCEEDS"} == (found if kind is AtCentres else set())


POLICIES_OF_ORDER = ("first_distinct", "last_distinct", "most_recent")


@pytest.mark.parametrize("strata", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_the_first_and_the_last_value_are_at_chance_over_the_strata(materials, strata):
    """They scored 0.36 of 0.25 over the fixed depths 0, 0.5 and 1."""
    tasks = task_set(materials, it={"type": "niah", "n_keys": 4, "template": "line", "digits": 2})
    answers = score_policies(Unit("it", PROSE, 200, "none", strata, 600 // strata), tasks, POLICIES_OF_ORDER)
    for scored in answers.values():
        hits = np.bincount([one.factors.index for one, _ in scored], [score.exact for _, score in scored]) / strata
        per_sample = hits[min(one.factors.index for one, _ in scored) :]
        error = per_sample.std() / len(per_sample) ** 0.5
        assert abs(per_sample.mean() - 0.25) < 3.3 * error


class TargetComesFirst:
    """A broken task: the target needle comes first whatever the depth."""

    def __init__(self, inner):
        self.inner, self.axes, self.config, self.has_keys = inner, inner.axes, inner.config, True
        self.solved_by, self.text_digest = inner.solved_by, inner.text_digest

    def episode(self, factors):
        return self.inner.episode(replace(factors, depth=0.0))


class FewAnswers(TargetComesFirst):
    """A broken task: one answer in three is always the same."""

    def episode(self, factors):
        return self.inner.episode(replace(factors, index=5 if factors.index % 3 == 0 else factors.index))


@pytest.mark.parametrize(("broken", "policy"), [(TargetComesFirst, "first_distinct"), (FewAnswers, "answer_prior")])
def test_a_planted_leak_is_detected(materials, broken, policy):
    tasks = task_set(materials, leaks={"type": "niah", "n_keys": 4, "word_pairs": True})
    tasks.by_name["leaks"] = broken(tasks.by_name["leaks"])
    table, _ = run_policies(tasks, [Unit("leaks", PROSE, 200, "none", 5, 60)])
    assert policy in {cell.policy for cell in table if cell.verdict == "EXCEEDS"}


class AnyIsAsLikely(TargetComesFirst):
    """A task that states too low a chance: as if a value's number told nothing of its place."""

    def episode(self, factors):
        e = self.inner.episode(factors)
        return replace(e, queries=tuple(replace(q, chance=1 / len(q.candidates)) for q in e.queries))


def test_lines_that_are_the_same_in_every_sample_are_detected(materials, monkeypatch):
    """Distractor lines in one order for all samples, while needles have strings of their own."""
    tasks = task_set(materials, book={"type": "phonebook"})
    unit = Unit("book", Formats("needles", "words", "numbers"), 500, "none", 5, 24)

    def verdict():
        return run_policies(tasks, [unit], 1, ["least_familiar"])[0][0]

    assert verdict().verdict != "EXCEEDS"
    tasks = task_set(materials, book={"type": "phonebook", "digits": 8})
    others = LineSample._others
    monkeypatch.setattr(LineSample, "_others", lambda hand, n: others(LineSample(hand._bank, Draws("old")), n))
    assert verdict().verdict == "EXCEEDS"
    assert verdict().accuracy > 3 * verdict().chance


@pytest.mark.parametrize("value", ["numbers", pytest.param("hex", marks=pytest.mark.slow)])
def test_needles_that_are_rarer_in_texts_than_other_lines_are_detected(materials, monkeypatch, value):
    """Needles were of the freest strings and other lines of all: the rarest value was right in a quarter."""
    task = {"type": "niah", "template": "line", "digits": 2}
    unit = Unit("it", Formats("needles", "words", value), 128, "none", 1, 300)

    def verdict():
        return run_policies(task_set(materials, it=task), [unit], 1, ["rarest_in_text"])[0][0]

    assert verdict().p > ALPHA / 2
    others = LineSample._others

    def any_others(sample, n):
        sample._barred = {pool: barred[:0] for pool, barred in sample._barred.items()}
        return others(sample, n)

    monkeypatch.setattr(LineSample, "_others", any_others)
    monkeypatch.setattr(distractor_lines, "ENOUGH", 0)
    assert verdict().p < ALPHA / 10


def test_a_question_that_reveals_the_place_is_detected(materials):
    tasks = task_set(materials, it={"type": "ordered", "n_keys": 2, "repeats": 2})
    unit = Unit("it", PROSE, 300, "none", 1, 120)

    def exceeding():
        return {c.policy for c in run_policies(tasks, [unit])[0] if c.verdict == "EXCEEDS"}

    assert not exceeding()
    tasks = task_set(materials, it={"type": "ordered", "n_keys": 2, "repeats": 2})  # without the cached episodes
    tasks.by_name["it"] = AnyIsAsLikely(tasks.by_name["it"])
    assert exceeding() == {"same_question"}


@pytest.mark.parametrize(
    ("task", "formats"),
    [
        pytest.param({"type": "niah"}, Formats("corpus", "words", "words"), marks=pytest.mark.slow),
        ({"type": "niah", "n_keys": 2}, Formats("corpus", "words", "uuids")),
        pytest.param(
            {"type": "niah", "n_keys": 2, "n_values": 2}, Formats("corpus", "words", "words"), marks=pytest.mark.slow
        ),
        ({"type": "mqar", "pairs": 4, "n_queries": 1}, Formats("corpus", "words", "words")),
        ({"type": "semantic"}, Formats("corpus", "-", "-")),
    ],
)
def test_the_tokens_that_are_left_tell_the_value_only_without_its_room(materials, monkeypatch, task, formats):
    """Episodes ended with their answer: its place told its tokens, and 0.5 to 0.7 were right where 0.25 are chance."""
    strata = 1 if task["type"] == "mqar" else 5
    unit = Unit("it", formats, 300, "none", strata, 200 // strata)

    def verdict():
        (cell,) = run_policies(task_set(materials, it=task), [unit], 1, ["room_left"])[0]
        return cell

    assert verdict().p > ALPHA / 5, "one alarm in twenty holds for one cell: here are five"
    monkeypatch.setattr(Question, "before", 0)
    monkeypatch.setattr(Question, "room", property(lambda q: len(q.ask) + len(q.answer) + len(q.tail)))
    without = verdict()
    assert without.p < ALPHA / 1000
    assert without.accuracy > 1.3 * without.chance


def test_a_question_is_masked_where_its_words_vary(materials):
    tasks = task_set(materials, it={"type": "ordered", "n_keys": 2, "repeats": 2})
    items = [item_of(tasks, "it", length=300, index=i) for i in range(60)]
    stats = collect_statistics(items, materials.tokenizer)
    questions = Counter(observe(item, materials.tokenizer, stats).question for item in items)
    assert all(question.endswith(("The first value for _ is", "The second value for _ is")) for question in questions)
    assert questions["The first value for _ is"] + questions["The second value for _ is"] > 40, (
        "else a word of the text before it"
    )


def test_the_end_of_a_list_of_frequent_words_is_the_task(materials, monkeypatch):
    tasks = task_set(materials, it={"type": "fwe"})
    unit = Unit("it", Formats("-", "-", "words"), 600, "none", 1, 40)
    table, _ = run_policies(tasks, [unit])
    marked = {c.policy: c for c in table if c.verdict == "the task"}
    assert set(marked) == {"most_frequent", "most_frequent_of_last_n"}
    assert marked["most_frequent_of_last_n"].accuracy > marked["most_frequent_of_last_n"].chance + 0.2
    row = pivot(table)[0]
    assert row["most frequent"].endswith("*")
    assert "*" not in row["random value"]
    assert row["distinct"] < len(POLICIES)
    monkeypatch.setattr(type(tasks.by_name["it"]), "solved_by", ())
    assert {c.policy for c in run_policies(tasks, [unit])[0] if c.verdict == "EXCEEDS"} >= set(marked)


def test_every_policy_has_a_counterpart_on_the_peer_or_a_reason_for_none():
    assert POLICIES.keys() == PEER_POLICIES.keys() | NOT_APPLICABLE.keys()
    assert not PEER_POLICIES.keys() & NOT_APPLICABLE.keys()


def test_every_policy_answers_every_question_once(tasks):
    answers = score_policies(Unit("twice", PROSE, 128, "none", 3, 3), tasks)
    assert list(answers) == list(POLICIES)
    for scored in answers.values():
        assert len({(one.factors, one.item.number) for one, _ in scored}) == len(scored) == 18


def test_the_command_needs_no_run_and_writes_the_table(tmp_path, data_settings, capsys, monkeypatch):
    monkeypatch.setattr("lcprobe.studies.evaluation.leakage.LEAKAGE_ANSWERS", 36)
    config = write_config(tmp_path, data_settings)
    assert evaluate_main([str(config), "--cheat"]) == 0
    out = tmp_path / "runs" / "tiny" / "cheating"
    rows = out.joinpath("cheating.csv").read_text().splitlines()
    assert (
        rows[0] == "policy,task,format,length,samples,n,accuracy,chance,low,high,p,p_holm,verdict,same_as,detectable"
    )
    assert len(rows) == 1 + 2 * 2 * len(POLICIES)
    output = capsys.readouterr().out
    assert "none exceeds chance" in output
    assert "note: n: 36 answers where a grid has fewer" in output
    assert len(read_json(out / "cheating.json")["rows"]) == len(rows) - 1


def test_a_config_without_grids_is_one_line(tmp_path, data_settings, capsys):
    config = write_config(tmp_path, data_settings, probe={"grids": []})
    assert evaluate_main([str(config), "--cheat"]) == 2
    assert "probe.grids: given 'nothing to probe'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_short_table_has_the_highest_policy_of_each_cell_that_does_not_solve_the_task():
    def cell(policy, accuracy, verdict="", length=64):
        return LeakageCell(policy, "t", "f", length, 9, 9, accuracy, 0.25, 0.2, 0.3, 0.5, 1.0, verdict, "", 0.4)

    table = [
        cell("low", 0.2),
        cell("high_one", 0.29),
        cell("solver", 1.0, "the task"),
        cell("leak", 0.6, "EXCEEDS", 128),
    ]
    short = highest(table)
    assert [(row["length"], row["policy"], row["highest"], row["exceed"]) for row in short] == [
        (64, "high one", ".29", 0),
        (128, "leak", ".60!", 1),
    ]
