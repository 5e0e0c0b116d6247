"""Time in a plan: a step takes the longer of what the devices compute and what their host does to launch it; the data
path beside devices at half of their peak. By hand, for the models of 2.7 B parameters."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lcprobe.config import load
from lcprobe.studies.planning.costs import data_notes, matching_table
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan, make_plan
from lcprobe.training.host import COMPILED, LAUNCH, UNCOMPILED, UPDATE, host_seconds
from lcprobe.training.loading.data_path import MEASURED
from lcprobe.words import short

ROOT = Path(__file__).resolve().parents[3]
HOST = json.loads((ROOT / "benchmarks" / "results" / "host-cpu.json").read_text(encoding="utf-8"))["rows"]
TOKENS, STEPS = 1 << 20, 54_000_000_000 // (1 << 20)


@pytest.fixture(scope="module")
def plan() -> StudyPlan:
    return make_plan(load(["configs/study/matched-2.7b.yaml", "configs/data/fineweb-edu.yaml"], []), fetch=False)


def changed(plan: StudyPlan, **settings) -> StudyPlan:
    runs = [
        replace(run, config=replace(run.config, train=replace(run.config.train, **settings))) for run in plan.runs
    ]
    return replace(plan, runs=runs)


def runs(plan: StudyPlan) -> dict[str, PlannedRun]:
    return {run.group: run for run in plan.runs}


def seconds(plan: StudyPlan) -> dict[str, float]:
    return {run.group: host_seconds(run.matched.config, run.config.train) for run in plan.runs}


def hours(plan: StudyPlan) -> dict[str, float]:
    return {str(row["model"]): float(row["hours, h100 (est.)"] or 0) for row in matching_table(plan)}


def test_the_figures_are_those_that_were_measured():
    shown = {(row["kind"], row["compiled"]): row for row in HOST}
    for costs, compiled in ((UNCOMPILED, False), (COMPILED, True)):
        for kind, cost in costs.items():
            row = shown[kind, compiled]
            assert (cost.milliseconds, cost.launches) == (row["ms"], row["launches"])
            assert UPDATE * 1000 == pytest.approx(row["clip and AdamW, ms"], abs=0.1)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_host_of_a_step_by_hand(plan, compiled):
    costs = COMPILED if compiled else UNCOMPILED
    of = seconds(changed(plan, accumulate=16, compile=compiled))
    mamba2, attention, mlp = (costs[k].milliseconds / 1000 + costs[k].launches * LAUNCH for k in costs)
    assert of["mamba2"] == pytest.approx(16 * 64 * mamba2 + 64 * UPDATE)
    assert of["transformerpp"] == pytest.approx(16 * 32 * (attention + mlp) + 64 * UPDATE)
    assert of["hybrid"] == pytest.approx(16 * (58 * mamba2 + 6 * attention) + 64 * UPDATE)
    again = seconds(changed(plan, accumulate=16, compile=compiled, recompute=True))["mamba2"]
    assert again == pytest.approx(16 * 64 * mamba2 * 4 / 3 + 64 * UPDATE)


def test_a_step_takes_the_longer_of_device_and_host(plan):
    """A row a forward pass, and four: 87 ms of an H100 each at 40 % of its peak, beside the host's."""
    run = runs(plan)["mamba2"]
    device = 3 * run.matched.cost.flops * TOKENS / (8 * 0.4 * 989e12)
    for rows in (1, 4):
        few = changed(plan, accumulate=64 // rows)
        host = 64 // rows * 64 * (COMPILED["mamba2"].milliseconds / 1000 + COMPILED["mamba2"].launches * LAUNCH)
        wanted = STEPS * max(device, host + 64 * UPDATE) / 3600
        assert hours(few)["mamba2"] == pytest.approx(wanted, abs=0.006)
    assert 64 * seconds(changed(plan, accumulate=1))["mamba2"] > device > seconds(few)["mamba2"]


def test_the_data_path_is_said_beside_devices_at_half_of_their_peak(plan):
    (line,) = data_notes(plan)
    need = {name: 8 * 0.5 * 989e12 / (3 * run.matched.cost.flops) for name, run in runs(plan).items()}
    name = max(need, key=need.__getitem__)
    core = 1e6 * MEASURED[0.05, 2048]
    assert line == (
        f"data path: {name} takes {short(round(need[name]))} tokens/s at 50% of the peak; train.workers=2 on each of 8 "
        f"make {16 * core / need[name]:.1f} times that, 8 in all {8 * core / need[name]:.1f} "
        "(9.85M a core as benchmarked, 5% episodes at 2,048 tokens)"
    )
    assert float(re.findall(r"8 in all ([0-9.]+)", line)[0]) >= 2
    alone = data_notes(changed(plan, workers=1))
    assert "8 in all" not in alone[0]
