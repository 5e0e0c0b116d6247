"""Planted behaviour is detected, and nothing is detected where nothing was planted."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from lcprobe.analysis.findings.cells import SCORES, Measured, NeedleTrials, Panel, PanelKey
from lcprobe.analysis.findings.contrasts import OF_MODELS, ON_THESE_RUNS, Contrast
from lcprobe.analysis.findings.contrasts import contrasts as declared
from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.place import W_SHAPE
from lcprobe.analysis.report.wording import position_state
from lcprobe.tasks.episode import Formats
from lcprobe.training_data import SHARES, TrainingData
from tests.analysis.fabricated import DEPTHS, FORMAT, LENGTHS, flat, plan, records, run, study, task

CELLS = plan(["single"])
STUDY = study([run("m")], [task("single")], CELLS)


def contrasts(data: Measured) -> list[Contrast]:
    """All contrasts, corrected as if they were the whole report."""
    return corrected(declared(data, {}))


def contrasts_of(behaviour, tasks=("single", 1), cells=CELLS) -> list[Contrast]:
    facts = study([run("m")], [task(*tasks)], cells)
    return contrasts(load_records(facts, records({"m": behaviour}, cells)))


def states(tested: list[Contrast]) -> dict[int, str]:
    kinds = ("lost in the middle", "primacy", "recency")
    return {n: position_state(c for c in tested if c.length == n and c.kind in kinds) for n in LENGTHS}


@pytest.mark.parametrize("studies", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_flat_oracle_raises_no_alarm(correlated, studies):
    """At most 5 % of the studies + two standard errors have a contrast that is significant after Holm.

    The model is right with p = .6 (or a rate per sample) at every length and depth.
    """
    data = load_records(STUDY, records({"m": flat(0.6)}, CELLS))
    nothing = {name: (np.zeros((6, 5)), np.zeros((6, 5))) for name in SCORES}
    where, alarms, tests = PanelKey("m", "single", Formats(*FORMAT)), 0, 0
    for seed in range(studies):
        generator = np.random.default_rng(seed)
        p = generator.beta(1.2, 0.8, 100) if correlated else 0.6
        hits = (generator.random((6, 5, 100)) < p).astype(np.int64)
        nothing_near = NeedleTrials(*[np.zeros(0)] * 4)
        panel = Panel(
            where, LENGTHS, DEPTHS, (5,) * 6, np.arange(100), hits, hits * 0 + 1, hits * 0, nothing, nothing_near
        )
        tested = contrasts(replace(data, panels={where: panel}))
        alarms += any(c.resolved for c in tested)
        tests += sum(c.p_report is not None for c in tested)
    # 3 lengths past the base, 3 contrasts at each of 6 lengths; now and then a centre is above its neighbours
    assert studies * 20.5 < tests <= studies * 21
    assert alarms <= 0.05 * studies + 2 * (0.05 * 0.95 * studies) ** 0.5


@pytest.mark.parametrize("studies", [50, pytest.param(250, marks=pytest.mark.slow)])
def test_the_family_of_a_model_on_a_task_keeps_its_error_rate(studies):
    """Studies of a flat .7: 30 samples, 7 depths with 3 in the middle, 5 lengths.

    Holm over 18 tests: 2.5 % of 20,000 such studies have a false positive.
    """
    lengths, depths = (64, 128, 256, 512, 1024), (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    cells = plan(["single"], lengths=lengths, depths=depths, n=30)
    data = load_records(study([run("m")], [task("single")], cells), records({"m": flat(0.7)}, cells))
    nothing = {name: (np.zeros((5, 7)), np.zeros((5, 7))) for name in SCORES}
    where, generator, alarms, small = (
        PanelKey("m", "single", Formats(*FORMAT)),
        np.random.default_rng(6),
        0,
        Counter(),
    )
    for _ in range(studies):
        hits = (generator.random((5, 7, 30)) < 0.7).astype(np.int64)
        panel = Panel(
            where,
            lengths,
            depths,
            (7,) * 5,
            np.arange(30),
            hits,
            hits * 0 + 1,
            hits * 0,
            nothing,
            NeedleTrials(*[np.zeros(0)] * 4),
        )
        tested = contrasts(replace(data, panels={where: panel}))
        alarms += any(c.resolved for c in tested)
        small.update(c.kind for c in tested if c.p is not None and c.p <= 0.05)
    assert alarms <= 0.025 * studies + 2 * (0.025 * 0.975 * studies) ** 0.5
    for kind, tests_of_each in (("length", 3), ("lost in the middle", 5), ("primacy", 5), ("recency", 5)):
        tests = tests_of_each * studies
        assert small[kind] <= 0.05 * tests + (2 if studies > 50 else 3) * (0.05 * 0.95 * tests) ** 0.5


def test_lost_in_the_middle_needs_a_dip_below_both_ends():
    dip = contrasts_of(lambda c: np.where(np.isin(c["depth"], (0, 1)), 0.85, 0.35))
    assert set(states(dip).values()) == {"lost in the middle"}
    (contrast,) = [c for c in dip if c.kind == "lost in the middle" and c.length == 128]
    assert contrast.low is not None
    assert contrast.high is not None
    assert contrast.low < 0.5 < contrast.high
    assert set(states(contrasts_of(lambda c: np.where(c["depth"] == 1, 0.95, 0.35))).values()) == {"recency alone"}
    assert set(states(contrasts_of(lambda c: np.where(c["depth"] == 0, 0.95, 0.35))).values()) == {"primacy alone"}
    assert set(states(contrasts_of(lambda c: 0.1 + 0.8 * (1 - c["depth"]))).values()) == {
        "start above and end below the middle"
    }


def test_ceiling_and_floor_are_not_testable():
    assert set(states(contrasts_of(flat(1.0))).values()) == {"not testable (ceiling)"}
    assert set(states(contrasts_of(flat(0.02))).values()) == {"not testable (floor)"}
    cells = plan(["multikey"])
    tested = contrasts_of(
        lambda c: np.where(c["index"] % 5 == 0, 1.0, 0.0), ("multikey", 4), cells
    )  # .20, chance .25
    assert set(states(tested).values()) == {"not testable (floor: no depth above chance)"}
    last = contrasts_of(
        lambda c: np.where(c["depth"] == 1, 0.9, 0.1), ("multikey", 4), cells
    )  # mean .26, yet not chance
    assert set(states(last).values()) == {"recency alone"}


def test_a_grid_without_ends_is_not_tested():
    cells = plan(["single"], depths=[0.25, 0.5, 0.75])
    tested = [c for c in contrasts_of(flat(0.6), cells=cells) if c.kind != "length"]
    assert {c.refused for c in tested} == {"not testable (the grid has no start, middle or end)"}


def test_length_differences_are_against_the_training_length():
    tested = contrasts_of(lambda c: np.where(c["length"] > 128, 0.5, 0.8))
    assert [(c.length, c.what) for c in tested if c.kind == "length"] == [
        (256, "256 − 128 tokens"), (512, "512 − 128 tokens"), (1024, "1024 − 128 tokens")
    ]  # fmt: skip
    for c in tested:
        if c.kind == "length":
            assert c.verdict == "lower"
            assert c.low is not None
            assert c.high is not None
            assert c.low < -0.3 < c.high
    nothing = [c for c in contrasts_of(flat(0.02)) if c.kind == "length"]
    assert {c.refused for c in nothing} == {"not testable (reference length at the floor)"}


def test_cells_of_two_models_are_compared_by_sample():
    models = {"a": flat(0.7), "b": flat(0.4)}
    table = records(models, CELLS)
    tested = contrasts(load_records(study([run("a"), run("b")], [task("single")], CELLS), table))
    frame = table.to_pandas()
    for c in [c for c in tested if c.kind == "model cell"][:5]:
        depth = float(c.what.split()[-1])
        cell = frame[(frame.length == c.length) & (frame.depth == depth)].pivot(
            index="index", columns="model", values="exact"
        )
        only_a, only_b = (cell.a & ~cell.b).sum(), (cell.b & ~cell.a).sum()
        z = abs(only_a - only_b) / (only_a + only_b) ** 0.5
        assert c.p == pytest.approx(2 * stats.t.sf(z, 99), rel=1e-5)
        assert c.difference == pytest.approx((only_a - only_b) / 100)
    whole = [c for c in tested if c.kind == "model"]
    assert len(whole) == 6
    assert {c.verdict for c in whole} == {"higher on these runs"}
    assert sum(c.low < 0.3 < c.high for c in whole if c.low is not None and c.high is not None) >= 5


def test_a_method_is_compared_with_the_same_runs_as_trained_and_nothing_else():
    """Two seeds of one model, as trained and with two methods, and another model that is only compared as trained."""
    rates = {"a1": 0.4, "a2": 0.4, "b": 0.6, "a1+yarn": 0.7, "a2+yarn": 0.7, "a1+window": 0.4, "a2+window": 0.4}
    runs = []
    for name in rates:
        base, _, label = name.partition("+")
        runs.append(
            run(name, group=base[0], base=base, extension=label or "none", not_causal="factor" if label else "")
        )
    table = records({name: flat(p) for name, p in rates.items()}, CELLS)
    tested = contrasts(load_records(study(runs, [task("single")], CELLS), table))
    gained = [c for c in tested if c.kind == "extension"]
    assert [(c.subject, c.what, c.length) for c in gained] == [
        ("a", f"{label} − as trained", length)
        for label in ("yarn", "window")
        for length in sorted({c["length"] for c in CELLS})
    ]
    assert {c.family for c in gained} == {"extensions on single"}
    gains = {label: [c for c in gained if c.what.startswith(label)] for label in ("yarn", "window")}
    assert all(c.low is not None and c.low > 0.15 for c in gains["yarn"])
    assert sum(c.low is not None and c.high is not None and c.low <= 0 <= c.high for c in gains["window"]) >= 5
    frame = table.to_pandas()
    mean = frame[frame.length == gained[0].length].groupby("model").exact.mean()
    expected = (mean["a1+yarn"] + mean["a2+yarn"] - mean["a1"] - mean["a2"]) / 2
    assert gained[0].difference == pytest.approx(expected)
    assert gained[0].seeds is not None
    assert {c.what for c in tested if c.kind == "model"} == {"a − b"}


def test_pairing_resolves_what_unpaired_intervals_do_not():
    """Two models right on nearly the same half of the samples: cell intervals overlap, the paired test resolves them."""

    def better(c):
        return (c["index"] < 58).astype(float)

    def worse(c):
        return (c["index"] < 47).astype(float)

    tested = contrasts(
        load_records(study([run("a"), run("b")], [task("single")], CELLS), records({"a": better, "b": worse}, CELLS))
    )
    whole = next(c for c in tested if c.kind == "model")
    assert whole.first is not None
    assert whole.second is not None
    assert whole.first.low < whole.second.high
    assert whole.verdict == "higher on these runs"
    assert whole.p == pytest.approx(2 * stats.t.sf(11**0.5, 99), rel=1e-5)


def test_a_difference_between_groups_must_hold_over_training_seeds():
    def model_contrast(rates: dict[str, float]) -> Contrast:
        runs = [run(name, group=name[0], seed=int(name[1:])) for name in rates]
        table = records({name: flat(p) for name, p in rates.items()}, CELLS)
        return next(
            c for c in contrasts(load_records(study(runs, [task("single")], CELLS), table)) if c.kind == "model"
        )

    noisy = model_contrast({"a1": 0.9, "a2": 0.5, "b1": 0.7, "b2": 0.3})
    assert noisy.p is not None
    assert noisy.p < 0.001  # significant over samples
    assert noisy.verdict == "no difference resolved"  # but not over seeds
    assert model_contrast({"a1": 0.8, "a2": 0.81, "a3": 0.79, "b1": 0.5, "b2": 0.51, "b3": 0.49}).verdict == "higher"
    assert model_contrast({"a1": 0.8, "b1": 0.5}).seeds is None
    equal_seeds = study(
        [run(name, group=name[0], seed=int(name[1:])) for name in ("a1", "a2", "b1", "b2")], [task("single")], CELLS
    )
    table = records({name: lambda c: c["index"] < 90 for name in ("b1", "b2")}, CELLS)
    table = pa.concat_tables([table, records({name: lambda c: c["index"] < 87 for name in ("a1", "a2")}, CELLS)])
    whole = [c for c in contrasts(load_records(equal_seeds, table)) if c.kind == "model"]
    assert len(whole) == len(LENGTHS)
    for equal in whole:
        assert equal.difference == pytest.approx(-0.03)
        assert equal.seeds is not None
        assert equal.seeds[0] < -0.03 < equal.seeds[1], "two seeds a side that agree to the last sample prove nothing"
        assert equal.seeds[0] < 0 < equal.seeds[1]


def test_only_formats_that_differ_in_one_factor_are_compared():
    formats = [("corpus", "words", "numbers"), ("corpus", "words", "uuids"), ("words", "words", "uuids")]
    cells = plan(["single"], formats)
    tested = [
        c
        for c in contrasts_of(lambda c: np.where(c["value_format"] == "uuids", 0.4, 0.8), cells=cells)
        if c.kind == "format"
    ]
    assert {c.what for c in tested} == {
        "corpus/words/numbers − corpus/words/uuids", "corpus/words/uuids − words/words/uuids"
    }  # fmt: skip
    assert {c.verdict for c in tested if "numbers" in c.what} == {"higher"}
    assert {c.verdict for c in tested if "numbers" not in c.what} == {"no difference resolved"}


def test_formats_with_other_depths_are_compared_where_they_meet():
    formats = [("corpus", "words", "numbers"), ("corpus", "words", "uuids")]
    cells = plan(["single"], formats[:1], [128]) + plan(["single"], formats[1:], [128], [0.0, 0.5])
    (c,) = [
        c for c in contrasts_of(lambda c: np.where(c["depth"] <= 0.5, 0.5, 1.0), cells=cells) if c.kind == "format"
    ]
    assert c.what.endswith("(2 shared depths)")
    assert c.first is not None
    assert c.first.n == 200
    assert c.verdict == "no difference resolved"  # and not "higher" by depths that only one has


def test_holm_runs_over_the_family_and_not_over_the_study():
    tested = contrasts_of(flat(0.6))
    family = [c for c in tested if c.p is not None and not c.needs]
    assert {c.family for c in family} == {"m on single"}
    smallest = min(family, key=lambda c: c.p or 0)
    assert smallest.p_report == pytest.approx(min(1, len(family) * (smallest.p or 0)))


def test_lost_in_the_middle_is_claimed_only_where_both_ends_are_above_it():
    """Recency alone raises the mean of the ends; a W has no single low; both once were called lost in the middle."""

    def lost(behaviour) -> set[str]:
        return {c.verdict for c in contrasts_of(behaviour) if c.kind == "lost in the middle"}

    assert lost(lambda c: np.where(c["depth"] == 1, 0.95, 0.35)) == {"no difference resolved"}
    assert lost(lambda c: np.where(c["depth"] == 0, 0.95, 0.35)) == {"no difference resolved"}
    assert lost(lambda c: np.where(np.isin(c["depth"], (0, 0.5, 1)), 0.9, 0.3)) == {W_SHAPE}
    assert lost(lambda c: np.where(np.isin(c["depth"], (0, 1)), 0.9, 0.3)) == {"higher"}
    assert lost(lambda c: np.where(np.isin(c["depth"], (0, 1)), 0.3, 0.9)) == {"lower"}
    w = contrasts_of(lambda c: np.where(np.isin(c["depth"], (0, 0.5, 1)), 0.9, 0.3))
    assert set(states(w).values()) == {f"both ends above the middle, {W_SHAPE}"}


def test_with_one_training_seed_no_model_is_named_better():
    """Every comparison of models says that it is about these runs; with two seeds that agree it is about models."""
    for seeds in (1, 2):
        rates = {f"{model}{seed}": 0.8 if model == "a" else 0.4 for model in "ab" for seed in range(seeds)}
        runs = [run(name, group=name[0], seed=int(name[1:])) for name in rates]
        table = records({name: flat(p) for name, p in rates.items()}, CELLS)
        tested = [c for c in contrasts(load_records(study(runs, [task("single")], CELLS), table)) if c.direction]
        of_models = [c for c in tested if c.kind in OF_MODELS]
        assert {c.kind for c in of_models} >= {"models", "model"}
        assert len(of_models) >= 2
        assert all(c.verdict.endswith(ON_THESE_RUNS) is (seeds == 1) for c in of_models)


@pytest.mark.parametrize(("longest", "inside"), [(118.0, "32 to 128"), (60.0, "32 to 64")])
def test_models_are_compared_past_where_the_trained_distances_of_either_end(longest, inside):
    """As lengths are: the rest of the report says that training ends there."""
    distances = TrainingData(needle_distances=tuple(np.interp(SHARES, (0, 1), (8.0, longest)).tolist()))
    facts = study([run("a"), run("b", training_data=distances)], [task("single")], CELLS)
    data = load_records(facts, records({"a": flat(0.8), "b": flat(0.6)}, CELLS))
    spans = {c.what.split("(")[1] for c in contrasts(data) if c.kind == "models"}
    first = LENGTHS[LENGTHS.index(int(inside.split()[-1])) + 1]
    assert spans == {f"{inside} tokens)", f"{first} to 1,024 tokens)"}


def test_an_incomplete_slice_is_compared_with_nothing():
    table = records({"m": flat(0.6)}, CELLS)
    hole = (np.array(table["length"]) == 128) & (np.array(table["depth"]) == 0.25)
    tested = contrasts(load_records(STUDY, table.filter(pa.array(~hole))))
    assert {c.refused for c in tested if c.kind == "length"} == {"incomplete (4 of 5 cells)"}
    assert {c.refused for c in tested if c.length == 128} == {"incomplete (4 of 5 cells)"}
