"""Depth effects and contrasts between training lengths, and runs that continued from another's weights."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.contrasts import Contrast
from lcprobe.analysis.findings.contrasts import contrasts as declared
from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.gates import gates
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.training_length.depth_effects import DepthEffect
from lcprobe.analysis.findings.training_length.depth_effects import depth_effects as declared_effects
from lcprobe.analysis.findings.training_length.length_fits import length_fits
from tests.analysis.fabricated import flat, plan, records, run, study, task

CELLS = plan(["single"], lengths=(64, 128, 256), depths=(0.0, 0.5, 1.0), n=100)


def data_of(behaviours, **changes):
    """Runs named `LENGTH-ARCHITECTURE-SEED`."""
    runs = []
    for name in behaviours:
        length, architecture, seed = name.split("-")
        group, facts = f"L{length}-{architecture}", changes.get(name.replace("-", "_"), {})
        runs.append(
            run(name, group=group, architecture=architecture, context_length=int(length), seed=int(seed), **facts)
        )
    return load_records(study(runs, [task("single")], CELLS), records(behaviours, CELLS))


def contrasts(data) -> list[Contrast]:
    return corrected(declared(data, {}))


def depth_effects(data) -> list[DepthEffect]:
    return corrected(declared_effects(data))


def dip(c):
    return np.where(c["depth"] == 0.5, 0.4, 0.8)


def test_a_middle_that_only_the_longer_training_length_loses_is_found():
    data = data_of({f"{t}-m-0": dip if t == 128 else flat(0.8) for t in (64, 128)})
    rows = depth_effects(data)
    assert [(e.at, e.place) for e in rows if e.effect == "primacy"] == [
        ("tokens", 64), ("tokens", 128), ("tokens", 256), ("multiple", 1.0), ("multiple", 2.0)
    ]  # fmt: skip
    for e in rows:
        assert e.verdict == "larger on these runs"
        assert e.low is not None
        assert e.high is not None
        assert e.low < 0.4 < e.high
        assert (e.longer, e.shorter, e.seeds) == (128, 64, None)


def test_several_seeds_have_bounds_over_seeds_around_the_same_difference():
    data = data_of({f"{t}-m-{s}": dip if t == 128 else flat(0.8) for t in (64, 128) for s in (0, 1)})
    for e in depth_effects(data):
        assert e.seeds is not None
        assert e.difference is not None
        assert e.p is not None
        assert sum(e.seeds) / 2 == pytest.approx(e.difference)
        assert e.p < 1e-4
        assert e.resolved <= (e.seeds[0] > 0)  # two seeds that differ by luck leave it open


def test_equal_models_have_no_effect_of_training_length():
    data = data_of({f"{t}-m-0": dip for t in (64, 128)})
    assert not any(e.resolved for e in depth_effects(data))
    at_ceiling = depth_effects(data_of({f"{t}-m-0": flat(1.0) for t in (64, 128)}))
    assert {e.refused for e in at_ceiling} == {"not testable (ceiling)"}


def test_models_are_compared_at_one_training_length_and_training_lengths_in_one_architecture():
    names = ("64-m-0", "128-m-0", "64-k-0", "128-k-0")
    tested = contrasts(data_of({name: flat(0.9 if name == "128-m-0" else 0.5) for name in names}))
    models = {c.subject for c in tested if c.kind == "model"}
    assert models == {"L64-m − L64-k", "L128-m − L128-k"}
    lengths = [c for c in tested if c.kind == "training length"]
    assert {c.subject: c.verdict for c in lengths} == {
        "L128-m − L64-m": "higher on these runs", "L128-k − L64-k": "no difference resolved"
    }  # fmt: skip
    assert {(c.family, c.length) for c in lengths} == {("training lengths on single", n) for n in (64, 128, 256)}
    assert sum(c.p_report is not None for c in lengths) == 6


def test_one_training_length_keeps_all_pairs_of_models():
    tested = contrasts(data_of({name: flat(0.5) for name in ("64-a-0", "128-b-0")}))
    assert {c.kind for c in tested if "−" in c.subject} == {"models", "model", "model cell"}
    assert depth_effects(data_of({name: flat(0.5) for name in ("64-a-0", "128-b-0")})) == []


def test_a_continued_run_is_shown_and_not_fitted():
    names = ("64-m-0", "128-m-0", "256-m-0")
    data = data_of({name: flat(0.9) for name in names}, **{"256_m_0": {"started_from": "64-m-0"}})
    (fit,) = length_fits(data, gates(data))
    assert [run.where.model for run in fit.runs] == ["64-m-0", "128-m-0"]
    assert [run.where.model for run in fit.continued] == ["256-m-0"]
    alone = replace(data, study=replace(data.study, runs=[data.study.runs[0], data.study.runs[2]]))
    assert length_fits(alone, gates(alone)) == []  # one training length from random weights


def test_runs_with_a_length_schedule_are_fitted_only_by_themselves():
    names = ("64-m-0", "128-m-0", "128-m-1")
    data = data_of({name: flat(0.9) for name in names}, **{"128_m_1": {"length_schedule": "64 until 0.5, then 128"}})
    (fit,) = length_fits(data, gates(data))
    assert [run.where.model for run in fit.continued] == ["128-m-1"]
    scheduled = [replace(run, length_schedule="32 until 0.5") for run in data.study.runs]
    everything = replace(data, study=replace(data.study, runs=scheduled))
    assert len(length_fits(everything, gates(everything))[0].runs) == 3
