"""Episodes on disk: what is read is what was built, other settings have another file, and damaged files are built again."""

from dataclasses import fields, replace

import numpy as np
import pytest

from lcprobe.probing import grid as grid_module
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.units import Unit
from lcprobe.schema import build
from lcprobe.tasks.episode import Episode, Formats
from tests.tasks.checks import materials_for

TASKS = {
    "queries": {"type": "niah", "n_keys": 4, "n_queries": 3},
    "separate": {"type": "niah", "n_keys": 4, "n_queries": 3, "separate": True},
    "values": {"type": "niah", "n_keys": 2, "n_values": 2},
    "counted": "ruler/cwe",
    "qa": {"type": "qa", "hops": 2},
}
UNIT = Unit("queries", Formats("corpus", "words", "numbers"), 600, "none", 2, 3)


def task_set(materials, cache, **changed) -> TaskSet:
    return TaskSet(build(ProbeConfig, {"tasks": {**TASKS, **changed}}, "probe"), materials, cache)


@pytest.fixture
def cache(tmp_path):
    return EpisodeCache(tmp_path / "episodes", 10**8)


@pytest.fixture
def never_built(monkeypatch):
    """Make a set of tasks unable to build."""

    def no_building(tasks: TaskSet) -> None:
        for task in tasks.by_name.values():
            monkeypatch.setattr(task, "episode", lambda factors: pytest.fail("built again"))

    return no_building


def same(a, b) -> bool:
    """Equal in every field, arrays by content and type."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


def all_same(a: list[Episode], b: list[Episode]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


@pytest.mark.parametrize("which", ["shipped", "llama", pytest.param("unigram", marks=pytest.mark.slow)])
def test_every_field_comes_back(materials, cache, never_built, which):
    materials = materials_for(materials, which)
    grid = build(Grid, {"lengths": [1], "depths": 2, "n": 3, "controls": ["none", "query_only", "no_needle"]}, "grid")
    built, read = task_set(materials, cache), task_set(materials, cache)
    units = built.plan([grid], 900).units
    assert {u.task for u in units} == set(TASKS)
    first = [built.episodes(unit) for unit in units]
    never_built(read)
    assert all(all_same(a, read.episodes(unit)) for a, unit in zip(first, units, strict=True))
    assert any(q.own is not None for e in first for one in e for q in one.queries)


def test_large_vocabularies(materials, cache):
    episodes = task_set(materials, None).episodes(UNIT)
    wide = [replace(e, ids=e.ids + 100_000) for e in episodes]
    cache.write({"a": 1}, wide)
    assert all_same(cache.read({"a": 1}), wide)


def test_in_memory_the_second_time(materials, cache):
    tasks = task_set(materials, cache)
    first = tasks.episodes(UNIT)
    assert tasks.episodes(UNIT) is first


def test_episodes_that_take_longer_to_write_than_to_build_are_not_kept(materials, cache):
    tasks = task_set(materials, cache)
    for length, kept in ((grid_module.MAX_DISK_LENGTH, True), (grid_module.MAX_DISK_LENGTH + 1, False)):
        unit = replace(UNIT, length=length, strata=1, n=1)
        assert len(tasks.episodes(unit)[0].ids) == length
        assert cache.path(tasks.facts(unit)).is_file() == kept


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    else:
        at = {"head": 3, "metadata": content.index(b"realised_depth") + 17, "tokens": len(content) - 9}[how]
        content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "head", "metadata", "tokens"])
def test_a_damaged_file_is_built_again(materials, cache, never_built, caplog, how):
    tasks = task_set(materials, cache)
    first, path = tasks.episodes(UNIT), cache.path(tasks.facts(UNIT))
    whole = path.read_bytes()
    damage(path, how)
    assert all_same(task_set(materials, cache).episodes(UNIT), first)
    assert path.name in caplog.text
    assert path.read_bytes() == whole
    again = task_set(materials, cache)
    never_built(again)
    assert all_same(again.episodes(UNIT), first)


def test_other_settings_are_another_file(materials, cache, monkeypatch):
    def path(materials=materials, unit=UNIT, **changed):
        tasks = task_set(materials, None, **changed)
        return cache.path(tasks.facts(unit))

    changed = [
        path(materials_for(materials, "llama")),
        path(materials_for(materials, "unigram")),
        path(queries={"type": "niah", "n_keys": 5, "n_queries": 3}),
        path(unit=replace(UNIT, length=601)),
        path(unit=replace(UNIT, control="no_needle")),
        path(unit=replace(UNIT, formats=Formats("noise", "words", "numbers"))),
        path(unit=replace(UNIT, formats=Formats("corpus", "words", "hex"))),
        path(unit=replace(UNIT, strata=3)),
        path(unit=replace(UNIT, n=2)),
        path(unit=replace(UNIT, first=3)),
    ]
    base = path()
    assert path(renamed=TASKS["queries"], unit=replace(UNIT, task="renamed")) == base
    monkeypatch.setattr(materials.tokenizer, "bos_id", 7)
    changed.append(path())
    monkeypatch.undo()
    monkeypatch.setattr(grid_module, "SUITE", "another")
    changed.append(path())
    monkeypatch.undo()
    monkeypatch.setattr(grid_module, "task_code", lambda cls: "another" * 3)
    changed.append(path())
    assert len({base, *changed}) == len(changed) + 1


def test_the_limit_holds_and_what_was_used_longest_ago_goes(materials, tmp_path):
    tasks = task_set(materials, None)
    episodes = tasks.episodes(UNIT)
    large = EpisodeCache(tmp_path / "large", 10**8)
    large.write({"n": 0}, episodes)
    size = large.path({"n": 0}).stat().st_size
    cache = EpisodeCache(tmp_path / "small", 3 * size + size // 2)
    for n in range(3):
        cache.write({"n": n}, episodes)
    assert cache.read({"n": 0}) is not None  # used again: the second is the oldest now
    cache.write({"n": 3}, episodes)
    assert [cache.path({"n": n}).is_file() for n in range(4)] == [True, False, True, True]
    assert sum(p.stat().st_size for p in cache.folder.iterdir()) <= cache.limit
    tiny = EpisodeCache(tmp_path / "tiny", size - 1)
    tiny.write({"n": 0}, episodes)
    assert tiny.read({"n": 0}) is None
    assert not tiny.folder.exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_warning(materials, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    tasks = task_set(materials, EpisodeCache(tmp_path / "file" / "episodes", 10**8))
    assert all_same(tasks.episodes(UNIT), task_set(materials, None).episodes(UNIT))
    assert "not kept" in caplog.text
