"""Strata of depth: over them the target needle's place is distributed as any other value's, whatever their number."""

import numpy as np
import pytest
from scipy import stats

from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.observation import TaskStatistics, observe
from lcprobe.probing.scoring import Item
from lcprobe.probing.units import Unit, place_in_stratum, stratum_centres
from lcprobe.schema import build
from lcprobe.seeds import Draws
from lcprobe.tasks.episode import SUITE, Formats

PROSE = Formats("corpus", "words", "numbers")
LINES = Formats("needles", "words", "numbers")
MOST_STRATA, SAMPLES = 9, 36
LEVEL = 1e-4
"""Of each test, with fixed samples: an honest task fails one in ten thousand, a skewed one nearly always."""
TASKS = {
    "niah": ({"type": "niah", "n_keys": 4, "word_pairs": True}, PROSE, 260),
    "full": ({"type": "niah", "n_keys": 4, "template": "line", "digits": 2}, PROSE, 60),
    "question_first": ({"type": "niah", "n_keys": 4, "question": "start", "word_pairs": True}, PROSE, 260),
    "lines": ({"type": "niah", "n_keys": 2, "digits": 3, "word_pairs": True}, LINES, 220),
    "phonebook": ({"type": "phonebook"}, LINES, 300),
    "semantic": ({"type": "semantic"}, PROSE, 200),
    "vt": ({"type": "vt", "hops": 1}, PROSE, 260),
    "vt_deep": ({"type": "vt", "chains": 3, "hops": 4}, PROSE, 360),
    "qa": ({"type": "qa"}, PROSE, 300),
    "qa_lines": ({"type": "qa", "labels": 8}, LINES, 300),
}


def unit(strata, n, name="t", first=0, **changes):
    given = {"formats": PROSE, "length": 100, "control": "none", **changes}
    return Unit(name, given["formats"], given["length"], given["control"], strata, n, first)


@pytest.mark.parametrize("strata", [1, 2, 3, 5, 7, 9])
def test_every_sample_is_once_in_every_stratum_at_one_place(strata):
    samples = unit(strata, 300).samples()
    assert [centre for centre, _ in samples] == np.repeat(stratum_centres(strata), 300).tolist()
    depths = np.array([factors.depth for _, factors in samples]).reshape(strata, 300)
    for k in range(strata):
        assert np.all((k / strata <= depths[k]) & (depths[k] <= (k + 1) / strata))
    places = depths * strata - np.arange(strata)[:, None]
    assert np.abs(places - places[0]).max() < 1e-9
    assert stats.kstest(depths.ravel(), "uniform").pvalue > LEVEL
    assert [f.index for _, f in samples] == [*range(300)] * strata


def test_the_place_depends_on_the_sample_alone_and_on_nothing_else_of_it():
    base = [f.depth for f in unit(3, 50).factors()]
    for changed in ({"name": "u"}, {"length": 900}, {"control": "wrong_key"}, {"formats": LINES}):
        assert [f.depth for f in unit(3, 50, **changed).factors()] == base
    assert [f.depth for f in unit(3, 20, first=30).factors()][:20] == base[30:50]
    places = np.array([place_in_stratum(i) for i in range(600)])
    for names in (("depth",), ("haystack",), ("slots",), ("place in the stratum",)):
        others = [Draws("niah", SUITE, "probe", i)(*names).uniform(1)[0] for i in range(600)]
        assert abs(stats.spearmanr(places, others).statistic) < 4 / 600**0.5


@pytest.mark.parametrize("name", TASKS)
def test_over_the_strata_the_target_is_where_any_value_is(materials, name):
    """Ranks are even, the first and the last value are right as often as the stated chance says, and the places of
    targets are distributed as those of distractors; over 1 to 9 strata, of a sample each."""
    settings, formats, length = TASKS[name]
    tasks = TaskSet(build(ProbeConfig, {"tasks": {"it": settings}}, "probe"), materials)
    task, tokenizer = tasks.by_name["it"], materials.tokenizer
    quantiles, targets, others, first, last = [], [], [], [], []
    for strata in range(1, MOST_STRATA + 1):
        n = strata * -(-SAMPLES // strata)
        own = Unit("it", task.axes.fitted(formats), length, "none", strata, n, first=100 * strata)
        every = own.factors()  # one of each sample, so that the tests' trials are independent
        for factors in (every[(i % strata) * n + i] for i in range(n)):
            episode = task.episode(factors)
            query = episode.queries[0]
            seen = observe(Item(episode, query), tokenizer, TaskStatistics(patterns={"9" * len(query.answer)}))
            values = [value.text for value in seen.values]
            rank = values.index(query.answer)
            # spread inside the rank, so that different numbers of values can be pooled
            quantiles.append((rank + place_in_stratum(-1 - len(quantiles))) / len(values))
            targets.append(seen.values[rank].first / seen.characters)
            others += [v.first / seen.characters for i, v in enumerate(seen.values) if i != rank]
            first.append((rank == 0) - query.chance)
            last.append((rank == len(values) - 1) - query.chance)
    assert stats.kstest(quantiles, "uniform").pvalue > LEVEL
    assert stats.ks_2samp(targets, others).pvalue > LEVEL
    for gains in (first, last):
        assert abs(np.mean(gains)) < 4 * np.std(gains) / len(gains) ** 0.5
