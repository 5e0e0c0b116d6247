"""The runner and its store: nothing twice, nothing lost, the records of an interrupted run are those of an unbroken one."""

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError, DataError
from lcprobe.probing import units
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.planted import Planted, perfect
from lcprobe.probing.progress import Done, amount_of_units
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import ModelScorer, Score
from lcprobe.probing.store import MemoryStore, Store, unit_id
from lcprobe.probing.units import Plan, place_in_stratum
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors
from tests.tiny import killed_until_done, write_config

SUBJECT = ProbedCheckpoint("m", "0" * 16, 1, 2)


def grid(**given):
    return build(Grid, {"tasks": ["single", "multikey"], "lengths": [1, 2], "depths": 3, "n": 9, **given}, "grid")


class ByPlace:
    """A scorer without a model: right iff the needle is among the last 60 tokens. Counts its work."""

    def __init__(self, fail_above=None):
        self.calls, self.items, self.fail_above = 0, 0, fail_above

    def score(self, items):
        if self.fail_above and len(items) > self.fail_above:
            raise torch.OutOfMemoryError("out of memory")
        self.calls, self.items = self.calls + 1, self.items + len(items)
        hits = [item.query.distance is not None and item.query.distance < 60 for item in items]
        return [Score(h, h, float(h), -1.0 - i, 1, False, "x") for i, h in enumerate(hits)]


def run(tasks, store, scorer, grids=None, batch_tokens=500):
    plan = tasks.plan(grids or [grid()], 64)
    ids = run_plan(plan, tasks, scorer, SUBJECT, store, batch_tokens=batch_tokens)
    return plan, store.read(ids)


def close(a, b):
    """Whether two tables have the same answers, whatever the batches and shared prefixes."""
    floats = ["log_likelihood"]
    rest = [name for name in a.column_names if name not in ("batch", "read_tokens", *floats)]
    near = all(np.allclose(a[name], b[name], atol=1e-4) for name in floats)
    return near and a.select(rest).equals(b.select(rest))


def test_every_planned_question_is_one_row(tasks, tmp_path):
    plan, table = run(tasks, Store(tmp_path), ByPlace(), [grid(), grid(tasks=["twice"], lengths=[2], n=4)])
    rows = table.to_pylist()
    assert len(rows) == 2 * 2 * 3 * 9 + 3 * 4 * 2
    keys = {(r["task"], r["length"], r["depth"], r["index"], r["query"]) for r in rows}
    assert len(keys) == len(rows)
    for r in rows:
        assert r["exact"] == (r["distance"] < 60)
        assert r["prompt_tokens"] + r["answer_tokens"] <= r["length"]
        assert r["status"] == "ok"
    assert plan.tokens == sum(u.length * n for u in plan.units for _, n in u.cells)


def test_records_in_memory_are_those_on_disk(tasks, untrained, tmp_path):
    scorer, few = ModelScorer(untrained, tasks.materials.tokenizer, "cpu", 1024), [grid(lengths=[1], n=3)]
    memory = MemoryStore()
    _, table = run(tasks, memory, scorer, few)
    _, same_table = run(tasks, Store(tmp_path), scorer, few)
    assert table.equals(same_table)
    again = ByPlace()
    _, kept = run(tasks, memory, again, few)
    assert again.calls == 0
    assert kept.equals(table)


def test_progress_grows_steadily_to_all_cells_and_tokens(tasks, tmp_path):
    told: list[Done] = []
    plan, store = tasks.plan([grid()], 64), Store(tmp_path)
    known = {"batch_tokens": 500, "progress": lambda done, label: told.append(done)}
    run_plan(replace(plan, units=plan.units[:2]), tasks, ByPlace(), SUBJECT, store)
    run_plan(plan, tasks, ByPlace(), SUBJECT, store, **known)
    whole = amount_of_units(plan.units)
    assert told == sorted(told)
    assert told[0] == amount_of_units(plan.units[:2]), "what is there already"
    assert told[-1] == told[-2] == whole, "before the last line, too"
    assert whole.cells == sum(len(unit.rows()) for unit in plan.units)
    steps = {b.cells - a.cells for a, b in zip(told, told[1:], strict=False)}
    assert max(steps) <= 3, "cell by cell, not unit by unit"


def test_a_rerun_does_nothing_and_a_larger_grid_only_what_is_missing(tasks, tmp_path):
    store, first = Store(tmp_path), ByPlace()
    _, table = run(tasks, store, first)
    again = ByPlace()
    _, same_table = run(tasks, store, again)
    assert again.calls == 0
    assert same_table.equals(table)
    more = ByPlace()
    _, larger = run(tasks, store, more, [grid(lengths=[1, 2, 4])])
    assert more.items == 2 * 3 * 9
    assert larger.num_rows == table.num_rows + 54


def test_cells_shared_by_two_grids_are_run_once_with_the_larger_n(tasks, tmp_path):
    scorer = ByPlace()
    plan, table = run(tasks, Store(tmp_path), scorer, [grid(n=4), grid(lengths=[2, 4], n=11)])
    assert scorer.items == table.num_rows == 2 * 3 * (4 + 11 + 11)
    assert [(u.length, u.n) for u in plan.units if u.task == "single"] == [(64, 4), (128, 11), (256, 11)]
    assert {d for u in plan.units for d, _ in u.cells} == {0.5 / 3, 0.5, 2.5 / 3}


def test_two_grids_that_divide_a_unit_into_different_strata_are_refused(tasks):
    with pytest.raises(ConfigError) as error:
        tasks.plan([grid(lengths=[1]), grid(lengths=[2]), grid(tasks=["multikey"], depths=5)], 64)
    assert str(error.value) == (
        "probe.grids[2].depths: given 5; allowed: 3, as in probe.grids[0], for both have "
        "multikey corpus/words/numbers @64"
    )
    grids = [grid(controls=["none", "no_needle"]), grid(controls=["no_needle"], depths=5)]
    assert {u.strata for u in tasks.plan(grids, 64).units} == {1, 3}, "a needle without a place has no strata"


def test_records_have_the_stratum_and_the_drawn_depth_the_same_place_in_all(tasks, tmp_path):
    wide = [grid(controls=["none", "wrong_key", "no_needle"], n=40)]
    _, table = run(tasks, Store(tmp_path), ByPlace(), wide)
    places = {}
    for r in table.to_pylist():
        assert r["strata"] == (1 if r["control"] == "no_needle" else 3)
        k = round(r["depth"] * r["strata"] - 0.5)
        assert r["depth"] == (k + 0.5) / r["strata"]
        places.setdefault(r["index"], set()).add(round(r["drawn_depth"] * r["strata"] - k, 9))
    assert {len(place) for place in places.values()} == {1}, "in every stratum, length, control and task"
    drawn = np.concatenate([[*place] for place in places.values()])
    assert np.all((drawn >= 0) & (drawn < 1))
    assert len({*drawn}) == 40


def test_hops_their_distance_and_rounds_are_recorded(materials, tmp_path):
    config = build(
        ProbeConfig, {"tasks": {"vt": {"type": "vt", "hops": 2}, "single": {"type": "niah", "n_keys": 1}}}, "probe"
    )
    probed = TaskSet(config, materials)
    plan = probed.plan([build(Grid, {"lengths": [3], "depths": 2, "n": 3}, "grid")], 128)
    scorer = Planted(perfect, materials.tokenizer)
    store = Store(tmp_path)
    ids = run_plan(plan, probed, scorer, SUBJECT, store, batch_tokens=500)
    table = store.read(ids)
    assert len(table) == 12
    for row in table.to_pylist():
        unit = next(u for u in plan.units if u.task == row["task"])
        episode = probed.by_name[row["task"]].episode(
            Factors(unit.formats, row["length"], row["drawn_depth"], row["index"])
        )
        assert row["rounds"] == episode.rounds
        if row["task"] == "single":
            assert (row["hops"], row["via_distance"]) == (0, None)
            continue
        assert row["hops"] == 2
        last = row["prompt_tokens"] - row["via_distance"]
        text = materials.tokenizer.decode(episode.ids[last:])
        assert " VAR " + episode.queries[0].key + " is" not in text, "after the last needed statement"
        before = materials.tokenizer.decode(episode.ids[:last])
        assert before.endswith(";")
        assert f" VAR {episode.queries[0].key} is VAR" in before[-80:]
        assert 0 < row["via_distance"] < row["distance"]


def test_out_of_memory_halves_the_batch_and_goes_on(tasks, tmp_path):
    few = [grid(n=3)]
    _, fixed = run(tasks, Store(tmp_path / "a"), ByPlace(), few)
    _, halved = run(tasks, Store(tmp_path / "b"), ByPlace(fail_above=2), few, batch_tokens=100_000)
    keys = ["exact", "episode", "depth", "index", "status"]
    assert halved.select(keys).equals(fixed.select(keys))
    assert max(halved["batch"].to_pylist()) <= 2


def test_what_never_fits_is_recorded_as_such(tasks, tmp_path):
    class Never(ByPlace):
        def score(self, items):
            if any(item.episode.ids.size > 64 for item in items):
                raise MemoryError
            return super().score(items)

    _, table = run(tasks, Store(tmp_path), Never(), [grid(tasks=["single"], n=2)])
    rows = table.to_pylist()
    assert {r["status"] for r in rows if r["length"] == 128} == {"oom"}
    assert {r["exact"] for r in rows if r["length"] == 128} == {None}
    assert {r["status"] for r in rows if r["length"] == 64} == {"ok"}


def test_another_error_is_not_swallowed(tasks, tmp_path):
    class Broken(ByPlace):
        def score(self, items):
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(tasks, Store(tmp_path), Broken())


@pytest.mark.parametrize("stop_after", [1, 3, 4, 7])
def test_stopped_inside_a_unit_and_resumed_from_its_journal(tasks, tmp_path, stop_after):
    class Stops(ByPlace):
        def score(self, items):
            if self.calls == stop_after:
                raise KeyboardInterrupt
            return super().score(items)

    _, whole = run(tasks, Store(tmp_path / "whole"), ByPlace())
    store = Store(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run(tasks, store, Stops())
    rest = ByPlace()
    _, resumed = run(tasks, store, rest)
    assert resumed.equals(whole)
    assert rest.items < whole.num_rows
    assert not list(store.folder.glob("*.journal"))


@pytest.mark.parametrize("damage", ["torn", "bit", "garbage"])
def test_a_damaged_journal_keeps_its_whole_lines_only(tasks, tmp_path, damage):
    store = Store(tmp_path)
    store.append("u", [{"a": 1}])
    store.append("u", [{"a": 2}])
    path = store.journal("u")
    raw = bytearray(path.read_bytes())
    if damage == "torn":
        raw = raw[:-3]
    elif damage == "bit":
        raw[len(raw) // 2 + 5] ^= 1
    else:
        raw += b"\x00\xff half a line"
    path.write_bytes(raw)
    kept = store.resume("u")
    assert kept == ([[{"a": 1}], [{"a": 2}]] if damage == "garbage" else [[{"a": 1}]])
    store.append("u", [{"a": 3}])
    assert store.resume("u") == [*kept, [{"a": 3}]]


def test_a_damaged_result_file_is_named_and_redone(tasks, tmp_path):
    store = Store(tmp_path)
    _, table = run(tasks, store, ByPlace())
    path = sorted(tmp_path.glob("*.parquet"))[0]
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(
        DataError, match=rf"^{path}: damaged .*, set aside as {path.stem}.bad; allowed: .* redoes it$"
    ):
        store.read([path.stem])
    assert not store.has(path.stem)
    scorer = ByPlace()
    _, again = run(tasks, store, scorer)
    assert again.equals(table)
    assert 0 < scorer.items < table.num_rows


def test_the_unit_id_tells_every_factor_apart(tasks, tmp_path):
    base = {"checkpoint": "a", "task": "t", "cells": [{"depth": 0.5, "n": 3}]}
    ids = {unit_id(base)}
    for key, value in (("checkpoint", "b"), ("task", "u"), ("cells", [{"depth": 0.5, "n": 4}])):
        ids.add(unit_id({**base, key: value}))
    assert len(ids) == 4
    assert unit_id(json.loads(json.dumps(base))) in ids


def test_units_of_depths_that_were_drawn_in_another_way_are_others(tasks, tmp_path, monkeypatch):
    """No record from before an edit of how depth is drawn counts with those from after it."""
    store = Store(tmp_path)
    plan = tasks.plan([grid()], 64)
    ids = run_plan(plan, tasks, ByPlace(), SUBJECT, store)
    drawn = place_in_stratum
    with monkeypatch.context() as edited:
        edited.setattr(units, "place_in_stratum", lambda index: 1 - drawn(index))
        tasks.forget()
        again = ByPlace()
        new = run_plan(plan, tasks, again, SUBJECT, store)
        assert again.items == len(store.read(new)) == len(store.read(ids))
    tasks.forget()
    assert not {*ids} & {*new}
    assert run_plan(plan, tasks, ByPlace(), SUBJECT, store).keys() == ids.keys()


def test_a_window_of_w_tokens_shows_in_the_records(tasks, tmp_path):
    _, table = run(tasks, Store(tmp_path), ByPlace(), [grid(lengths=[1, 2, 4, 8], depths=5, n=20)])
    rows = table.to_pylist()
    right = [r["distance"] for r in rows if r["exact"]]
    wrong = [r["distance"] for r in rows if not r["exact"]]
    assert max(right) < 60 <= min(wrong)
    for r in rows:
        assert abs(r["distance"] - (1 - r["drawn_depth"]) * r["length"]) < 40, "a needle is at its depth"


def test_a_real_model_gives_equal_records_at_any_batch_size(tasks, trained, tmp_path):
    scorer = ModelScorer(trained, tasks.materials.tokenizer, "cpu", 1024)
    _, a = run(tasks, Store(tmp_path / "a"), scorer, batch_tokens=10**6)
    _, b = run(tasks, Store(tmp_path / "b"), scorer, batch_tokens=300)
    for name in ("exact", "rank", "prediction", "distractor_hit", "episode"):
        assert a[name].equals(b[name]), name
    assert np.abs(np.array(a["log_likelihood"]) - np.array(b["log_likelihood"])).max() < 1e-3


class FailingScorer(ModelScorer):
    """Runs out of memory above `most` questions, and is interrupted after `calls` calls."""

    most, calls = 10**9, 10**9

    def score(self, items):
        if len(items) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        return super().score(items)


def failing(untrained, tasks, **limits):
    scorer = FailingScorer(untrained, tasks.materials.tokenizer, "cpu", 1024, batch_tokens=1500)
    for name, value in limits.items():
        setattr(scorer, name, value)
    return scorer


def test_sharing_outlives_a_small_memory_an_interruption_and_another_batch_size(tasks, untrained, tmp_path):
    sweep = [grid(tasks=["single", "twice"], lengths=[2], depths=5, n=4)]
    _, whole = run(tasks, Store(tmp_path / "whole"), failing(untrained, tasks), sweep, 1500)
    prompts, read = (np.array(whole[name]).sum() for name in ("prompt_tokens", "read_tokens"))
    assert read < 0.85 * prompts
    _, halved = run(tasks, Store(tmp_path / "halved"), failing(untrained, tasks, most=3), sweep, 1500)
    assert close(halved, whole)
    store = Store(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run(tasks, store, failing(untrained, tasks, calls=3), sweep, 1500)
    in_journal = sum(len(batch) for path in store.folder.glob("*.journal") for batch in store.resume(path.stem))
    assert in_journal
    _, resumed = run(tasks, store, failing(untrained, tasks), sweep, 4000)
    assert close(resumed, whole)


def test_units_of_other_values_and_controls_share_their_haystack(tasks, untrained, tmp_path):
    wide = [
        grid(
            tasks=["single"],
            lengths=[8],
            depths=2,
            value=["numbers", "hex"],
            controls=["none", "wrong_key"],
            n=2,
        )
    ]
    scorer = ModelScorer(untrained, tasks.materials.tokenizer, "cpu", 1024, batch_tokens=100_000)
    plan, together = run(tasks, Store(tmp_path / "a"), scorer, wide, 100_000)
    store = Store(tmp_path / "b")
    parts = [run_plan(Plan([unit], []), tasks, scorer, SUBJECT, store, batch_tokens=100_000) for unit in plan.units]  # fmt: skip
    apart = store.read(name for part in parts for name in part)
    assert len(plan.units) == 4
    assert close(together, apart)
    read = [np.array(table["read_tokens"]).sum() for table in (together, apart)]
    assert read[0] < 0.85 * read[1]


def test_killed_while_probing_and_resumed_equals_uninterrupted(tmp_path, data_settings):
    config = write_config(
        tmp_path, data_settings, train={"tokens": 64 * 4 * 4, "context_length": 64, "batch_tokens": 256}
    )
    assert train_main([str(config)]) == 0
    study = tmp_path / "runs" / "tiny"
    records = study / "records"
    small = "probe.batch_tokens=200"
    dice = random.Random(3)
    growth = [dice.randrange(1, 12_000) for _ in range(4)]
    kills = killed_until_done("evaluate_main", [str(study), small], tmp_path / "log", records, growth)
    assert kills >= 2, (tmp_path / "log").read_text()
    killed = {p.name: pq.read_table(p) for p in records.glob("*.parquet")}
    csv = (study / "tables" / "cells.csv").read_text()
    for p in records.glob("*"):
        p.unlink()
    assert evaluate_main([str(study), small]) == 0
    whole = {p.name: pq.read_table(p) for p in records.glob("*.parquet")}
    assert killed.keys() == whole.keys()
    assert all(killed[name].equals(table) for name, table in whole.items())
    assert (study / "tables" / "cells.csv").read_text() == csv
