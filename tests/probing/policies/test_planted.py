"""Planted models through the whole pipeline: the report says the defect with its size, and nothing of sound models."""

import numpy as np
import pytest

from lcprobe.probing.policies.planted import Planted, blind_middle, blind_to_uuids, noise, perfect, sees_last
from lcprobe.probing.scoring import Item
from lcprobe.probing.store import Store
from lcprobe.tasks.episode import Factors, Formats
from validation.planted import (
    SOUND,
    Asked,
    data_of,
    defect_row,
    grid_of,
    heard,
    of_seed,
    plants,
    quiet_row,
    records_of,
    recovered,
    task_set,
)

PLANTS = {plant.name: plant for plant in plants()}


@pytest.fixture(scope="module")
def asked(materials):
    return task_set(materials.stream("corpus"))


def items(tasks, value="numbers", task="multikey", n=200):
    made = [tasks.by_name[task].episode(Factors(Formats("corpus", "words", value), 300, i / n, i)) for i in range(n)]
    return [Item(episode, episode.queries[0]) for episode in made]


def test_an_oracle_finds_or_guesses_and_says_the_same_again(asked):
    tok, questions = asked.materials.tokenizer, items(asked)
    assert all(s.exact for s in Planted(perfect, tok).score(questions))
    blind = Planted(noise(0.0), tok).score(questions)
    assert 0.15 < sum(s.exact for s in blind) / len(blind) < 0.35, "one of four values at random"
    assert all(s.exact or s.distractor_hit for s in blind)
    assert not any(s.exact for s in Planted(noise(0.0), tok).score(items(asked, task="single"))), (
        "nothing to guess among"
    )
    half = Planted(noise(0.5), tok, seed=3)
    assert half.score(questions) == half.score(questions) == [half.score([q])[0] for q in questions]
    assert half.score(questions) != Planted(noise(0.5), tok, seed=4).score(questions)


def test_defects_are_where_they_are_planted(asked):
    tok, questions = asked.materials.tokenizer, items(asked, task="single")
    for item, score in zip(questions, Planted(sees_last(120), tok).score(questions), strict=True):
        assert score.exact == (item.query.distance <= 120)
    assert not any(s.exact for s in Planted(blind_to_uuids(1.0), tok).score(items(asked, "uuids", "single", 20)))
    assert all(s.exact for s in Planted(blind_to_uuids(1.0), tok).score(items(asked, "hex", "single", 20)))


SIZES = {
    "sees the last 150 tokens": 150,
    "sees the last 600 tokens": 600,
    "sees the last 300 tokens": 300,
    "forgets half every 100 tokens": 100,
    "forgets half every 400 tokens": 400,
    "forgets half every 200 tokens": 200,
    "finds 0, else 0.9, in the middle": 0.9,
    "finds 0, else 0.9, of UUIDs": 0.9,
    "finds 0.6, else 0.9, in the middle": 0.3,
    "finds 0.6, else 0.9, of UUIDs": 0.3,
}


@pytest.mark.parametrize(
    ("name", "size"),
    [pair if i % 3 == 0 else pytest.param(*pair, marks=pytest.mark.slow) for i, pair in enumerate(SIZES.items())],
)
def test_the_report_recovers_the_defect_with_its_size(asked, name, size, tmp_path):
    """One interval in twenty misses by design: six of eight seeds or more. Estimates lie around the size, none at twice it."""
    found = [recovered(asked, PLANTS[name], 40, seed, tmp_path) for seed in range(8)]
    values, lows, highs = np.array([a.said for a in found]).T
    assert ((lows <= size) & (size <= highs)).sum() >= 6, found
    assert np.abs(np.log(np.median(values) / size)) < 0.2
    assert (np.abs(np.log(values / size)) < 0.7).all()
    assert (highs - lows < max(0.35, 0.5 * size)).all(), "intervals that say something"
    assert len({a.data for a in found}) == 8
    assert len({a.said for a in found}) >= 6, "eight data sets, not one eight times"


def test_every_plant_is_tested_at_its_own_size():
    assert {name: plant.size for name, plant in PLANTS.items()} == pytest.approx(SIZES)


def test_rows_count_the_seeds_that_hold_the_size():
    found = [Asked("a", (160.0, 140.0, 180.0)), Asked("b", (170.0, 151.0, 190.0)), Asked("b", (150.0, 149.0, 151.0))]
    row = defect_row(PLANTS["sees the last 150 tokens"], found, 40)
    assert (row["estimate"], row["low"], row["high"], row["recovered"]) == (160.0, 140.0, 180.0, "yes")
    assert row["seeds"] == "true size inside in 2 of 3"
    assert row["different data"].startswith("2 of 3 seeds: samples s x 40 on")
    assert defect_row(PLANTS["sees the last 150 tokens"], found[1:], 40)["recovered"] == "no"


def test_a_seed_is_asked_its_own_samples_and_says_which(asked, tmp_path):
    plan = grid_of(asked, "single", 5)
    store = Store(tmp_path)
    tables = [records_of(asked, of_seed(plan, 5, seed), perfect, seed, store) for seed in range(3)]
    assert [sorted(set(t["index"].to_pylist())) for t in tables] == [list(range(s * 5, s * 5 + 5)) for s in range(3)]
    for column in ("episode", "haystack_start", "answer"):
        ours = [set(t[column].to_pylist()) for t in tables]
        assert not ours[0] & ours[1]
        assert not ours[1] & ours[2]
    shifted = records_of(asked, of_seed(plan, 5, 1), perfect, 0, store)  # the same subject in the same store
    assert sorted(set(shifted["index"].to_pylist())) == list(range(5, 10))
    again = records_of(asked, of_seed(plan, 5, 1), perfect, 1, Store(tmp_path / "again"))
    assert data_of(again) == data_of(tables[1]) != data_of(tables[2])


@pytest.mark.parametrize("task", ["single", "formats"])
def test_sound_models_raise_no_alarm(asked, task, tmp_path):
    """Every seed through the whole pipeline, on samples of its own. At 5 % more than four of twenty are one case in 400."""
    plan = grid_of(asked, task, 25)
    quiet = [heard(asked, of_seed(plan, 25, seed), perfect, seed, tmp_path / "perfect") for seed in range(3)]
    assert [a.alarms for a in quiet] == [(), (), ()]
    found = [heard(asked, of_seed(plan, 25, seed), noise(0.7), seed, tmp_path / "noise") for seed in range(20)]
    assert sum(bool(a.alarms) for a in found) <= 4, found
    assert len({a.data for a in quiet + found}) == 20, "the perfect one is asked what the noisy one is"


def test_a_defect_is_an_alarm_and_counted_as_one(asked, tmp_path):
    plan = grid_of(asked, "single", 25)
    found = [heard(asked, of_seed(plan, 25, seed), blind_middle(0.9, 0.1), seed, tmp_path) for seed in range(2)]
    assert all(any(alarm.startswith("lost in the middle") for alarm in a.alarms) for a in found)
    row = quiet_row("a defect", "single", [*found, Asked("none")], 25)
    assert (row["estimate"], row["recovered"]) == (0.333, "no")
    assert row["seeds"].startswith("no alarm in 1 of 3 (alarms: ")
    assert "lost in the middle" in row["seeds"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_no_alarm_in_95_percent_of_200_seeds_through_the_whole_pipeline(asked, name, tmp_path):
    plan = grid_of(asked, "single", 30)
    found = [heard(asked, of_seed(plan, 30, seed), SOUND[name], seed, tmp_path) for seed in range(200)]
    assert sum(not a.alarms for a in found) >= 190
    assert len({a.data for a in found}) == 200
