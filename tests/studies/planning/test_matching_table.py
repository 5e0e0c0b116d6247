"""The table of matched models: sizes, costs and estimates of every run of a plan."""

from lcprobe.config import load
from lcprobe.studies.planning.costs import matching_table
from lcprobe.studies.planning.plan import make_plan
from tests.tiny import write_config


def test_the_table_of_matched_models_has_sizes_costs_and_estimates(data_settings, tmp_path):
    plan = make_plan(load([str(write_config(tmp_path, data_settings))], []))
    rows = matching_table(plan)
    assert [row["model"] for row in rows] == ["mamba2", "hybrid"]
    for row in rows:
        for word in (
            "parameters",
            "embedding",
            "state bytes",
            "KV bytes",
            "FLOPs/token",
            "tokens",
            "hours",
            "memory",
        ):
            assert any(word in name for name in row), word
    assert plan.mismatch < 0.01
    seeds = make_plan(load([str(write_config(tmp_path, data_settings))], ["grid.seed=[0, 1]"]))
    assert [run.name for run in seeds.runs] == ["mamba2-s0", "mamba2-s1", "hybrid-s0", "hybrid-s1"]
    assert [run.config.seed for run in seeds.runs] == [0, 1, 0, 1]
    assert {run.group for run in seeds.runs} == {"mamba2", "hybrid"}
    rates = make_plan(load([str(write_config(tmp_path, data_settings))], ["grid.train.lr=[0.1, 0.01]"]))
    assert [run.config.train.lr for run in rates.runs] == [0.1, 0.01] * 2
