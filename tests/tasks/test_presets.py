"""Presets: mappings that could be written out; the grid asks them in their own formats; mistakes are one line."""

import pytest

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.schema import build
from lcprobe.tasks import TASKS
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.presets import PRESETS, choose_task

THIRTEEN = (
    *(f"ruler/niah_single_{i}" for i in (1, 2, 3)),
    *(f"ruler/niah_multikey_{i}" for i in (1, 2, 3)),
    *(f"ruler/{name}" for name in ("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2")),
)
MADE = [name for name in THIRTEEN if PRESETS[name]["type"] in TASKS]


def tasks_of(materials, **tasks):
    return TaskSet(build(ProbeConfig, {"tasks": tasks}, "probe"), materials)


def test_there_are_rulers_thirteen():
    assert tuple(PRESETS) == THIRTEEN
    assert len(MADE) >= 11


@pytest.mark.parametrize("name", MADE)
def test_a_preset_is_a_task_in_its_formats_at_every_length(materials, name):
    tasks = tasks_of(materials, it=name)
    grid = build(
        Grid,
        {"lengths": [1, 4], "depths": 1, "n": 3, "haystack": ["words", "corpus"], "value": ["hex", "uuids"]},
        "grid",
    )
    plan = tasks.plan([grid], 512)
    assert plan.notes == []
    assert [unit.length for unit in plan.units] == [512, 2048]
    (formats,) = {unit.formats for unit in plan.units}
    for factor, level in PRESETS[name]["formats"].items():
        assert getattr(formats, factor) == level
    for unit in plan.units:
        for e in tasks.episodes(unit):
            assert len(e.ids) == unit.length
            assert materials.tokenizer.same_after_round_trip(e.ids)
            assert all(q.chance <= 0.5 for q in e.queries), "printing the only value there is scores nothing here"
    assert tasks.by_name["it"].has_keys


def test_the_same_written_out_is_the_same(materials):
    preset = PRESETS["ruler/fwe"]
    tasks = tasks_of(
        materials, a="ruler/fwe", b={"type": "ruler/fwe"}, c=preset, d={"type": "ruler/fwe", "others": 9}
    )
    assert len({tasks.digest(name, "-") for name in "abc"}) == 1
    assert tasks.digest("d", "-") != tasks.digest("a", "-")
    assert tasks.by_name["a"].config == tasks.by_name["c"].config
    assert tasks.by_name["d"].config.others == 9


def test_formats_on_top_of_a_preset_and_in_any_task(materials):
    tasks = tasks_of(
        materials,
        a={"type": "ruler/niah_single_1", "n_keys": 8, "formats": {"haystack": "words"}},
        b={"type": "niah", "formats": {"value": "uuids"}},
    )
    assert tasks.by_name["a"].config.n_keys == 8
    grid = build(Grid, {"lengths": [1], "haystack": ["noise", "corpus"], "value": ["numbers", "hex"], "n": 1}, "grid")
    found = {(unit.task, unit.formats) for unit in tasks.plan([grid], 512).units}
    words = Formats("words", "words", "numbers")
    assert found == {
        ("a", words),
        ("b", Formats("noise", "words", "uuids")),
        ("b", Formats("corpus", "words", "uuids")),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "ruler/niah_singel_1",
            r"^it\.type: given 'ruler/niah_singel_1'; allowed: ruler/niah_single_1 \|.*ruler/niah_single_1",
        ),
        ({"type": "ruler/cew"}, r"^it\.type: given 'ruler/cew'.*ruler/cwe"),
        ({"type": "ruler/vt", "chain": 3}, r"^it\.chain: an unknown key"),
        ({"type": "ruler/vt", "chains": 1}, r"^it\.chains: given 1; allowed: 2"),
        ({"type": "niha"}, r"^it\.type: given 'niha'.*niah"),
        (
            {"type": "niah", "formats": {"hay": "noise"}},
            r"^it\.formats: given 'hay'; allowed: haystack \| key \| value",
        ),
        ({"type": "niah", "formats": {"haystack": "noize"}}, r"^it\.formats\.haystack: given 'noize'.*noise"),
        ({"type": "niah", "formats": "noise"}, r"^it\.formats: given 'noise'; allowed: a mapping"),
        ({"n_keys": 2}, r"^it\.type: given 'nothing'"),
        (3, r"^it: given 3; allowed: the name of a task or preset"),
    ],
)
def test_mistakes_are_one_line(given, message):
    with pytest.raises(ConfigError, match=message):
        choose_task(given, "it")


def test_a_format_that_a_task_does_not_have_is_one_line(materials):
    with pytest.raises(ConfigError, match=r"^probe\.tasks\.it\.formats\.haystack: given 'noise'; allowed: -$"):
        tasks_of(materials, it={"type": "cwe", "formats": {"haystack": "noise"}})


def test_a_file_that_is_not_there_is_named_by_its_whole_key(materials):
    with pytest.raises(
        ConfigError, match=r"^probe\.tasks\.mine\.path: given 'nowhere\.json'; allowed: an existing SQuAD JSON"
    ):
        tasks_of(materials, mine={"type": "qa", "source": "squad", "path": "nowhere.json"})


def test_a_format_outside_a_tasks_axes_is_a_mistake_and_not_a_sample_that_does_not_fit(materials):
    """Training tries another sample after an EpisodeError: what no sample can have must not pass for one."""
    task = tasks_of(materials, vt="vt").by_name["vt"]
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'needles'") as caught:
        task.episode(Factors(Formats("needles", "words", "numbers"), 256, 0.5, 0))
    assert not isinstance(caught.value, EpisodeError)
