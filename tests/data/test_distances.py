"""`data.recipes.NAME.distance`: how far back the needles of training episodes are, all of them alike."""

import numpy as np
import pytest
from scipy import stats

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.errors import ConfigError
from lcprobe.schema import build
from lcprobe.tasks.parts.placement import depths_of

LENGTH, N = 384, 240
SHIFT = 6
"""Tokens by which a cut moves to a word boundary, at most."""
ALL_QUERIED = {"type": "niah", "n_keys": 4, "n_queries": 4, "template": "line", "digits": 2}
TASKS = {
    "niah": ALL_QUERIED,
    "ordered": {"type": "ordered", "n_keys": 3, "repeats": 2, "digits": 2},
    "vt": {"type": "vt", "chains": 2, "hops": 2, "digits": 2},
    "semantic": {"type": "semantic", "n_needles": 4},
    "qa": {"type": "qa", "hops": 2, "labels": 2},
}


def episodes(prepared, data_settings, task, distance, n, haystack="corpus", length=LENGTH):
    recipe = {"task": task, "distance": distance, "haystack": [haystack]}
    given = {**data_settings, "recipes": {"r": recipe}, "mixture": [{"lm": 0, "episodes": {"r": 1}}]}
    config = build(DataConfig, given, "data")
    mixture = Mixture(config, prepared, context_length=length, rows=4, steps=9, parts=1, seed=0)
    return [mixture._episode("r", index, length) for index in range(n)]


def shares_after(episode):
    """Share of the haystack after each needle, in order of appearance. Before the context there is BOS alone."""
    sizes = [stop - start for start, stop in episode.needles]
    before = [start - 1 - sum(sizes[:i]) for i, (start, _) in enumerate(episode.needles)]
    return 1 - np.array(before) / episode.haystack_tokens


def needle_of(episode, query):
    """The queried needle's number in order of appearance."""
    return next(i for i, (start, stop) in enumerate(episode.needles) if start <= query.needle < stop)


def cdf(distance, x):
    """The share of needles with at most x of the haystack after them."""
    if distance == "recent":
        return np.clip(x / 0.25, 0, 1)
    if distance == "log":
        return np.clip(1 + np.log(np.maximum(x, 1e-9)) / np.log(LENGTH), 0, 1)
    return np.clip(x, 0, 1)


@pytest.mark.parametrize("distance", ["uniform", "recent", "log"])
def test_every_queried_needle_has_the_distribution_of_the_recipe(prepared, data_settings, distance):
    """All needles are queried: every distance is one of a question."""
    made = episodes(prepared, data_settings, ALL_QUERIED, distance, N)
    of_query = np.array([[shares_after(e)[needle_of(e, q)] for q in e.queries] for e in made])
    assert of_query.shape == (N, 4)
    shift = SHIFT / made[0].haystack_tokens
    for number in range(4):
        for x in (0.03, 0.06, 0.12, 0.2, 0.3, 0.5, 0.7, 0.9):
            share = (of_query[:, number] <= x).mean()
            error = 4 * np.sqrt(0.25 / N)
            assert cdf(distance, x - shift) - error <= share <= cdf(distance, x + shift) + error, (number, x)


@pytest.mark.parametrize("name", TASKS)
def test_nothing_is_asked_past_the_last_quarter_in_any_task(prepared, data_settings, name):
    for e in episodes(prepared, data_settings, TASKS[name], "recent", 40):
        assert shares_after(e).max() <= 0.25 + SHIFT / e.haystack_tokens


def test_among_lines_the_target_is_in_the_last_quarter(prepared, data_settings):
    task = {"type": "phonebook", "n_queries": 2, "digits": 5}
    made = episodes(prepared, data_settings, task, "recent", 40, "needles")
    assert max(q.distance for e in made for q in e.queries) < 0.25 * LENGTH + 40
    anywhere = episodes(prepared, data_settings, task, "uniform", 40, "needles")
    assert max(q.distance for e in anywhere for q in e.queries) > 0.5 * LENGTH


@pytest.mark.parametrize("distance", ["recent", "log"])
def test_no_place_among_the_needles_is_likelier_to_be_asked(prepared, data_settings, distance):
    task = {"type": "niah", "n_keys": 4, "template": "line", "digits": 2}
    made = episodes(prepared, data_settings, task, distance, 400, length=128)
    ranks = [needle_of(e, e.queries[0]) for e in made]
    assert stats.chisquare(np.bincount(ranks, minlength=4)).pvalue > 1e-4


def test_uniform_depths_are_the_draws_themselves():
    u = np.linspace(0, 1, 7, endpoint=False)
    assert np.array_equal(depths_of("uniform", u, 64), u)
    assert depths_of("recent", u, 64).min() == 0.75
    logs = np.log(1 - depths_of("log", u, 64)) / np.log(64)
    assert np.allclose(logs, u - 1), "distance = length ^ (u - 1)"


@pytest.mark.parametrize("task", ["mqar", "cwe", "fwe", "state_tracking"])
def test_a_task_without_drawn_depths_refuses_a_distance(data_settings, task):
    given = {**data_settings, "recipes": {"r": {"task": task, "distance": "log"}}}
    with pytest.raises(ConfigError, match=rf"^data.recipes.r.distance: given 'log'; allowed: uniform for {task}"):
        build(DataConfig, given, "data")
