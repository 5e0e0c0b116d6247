"""The table of costs in the documentation: it is that of the data, and the data are what `--plan` says now."""

import json
from pathlib import Path

import pytest

from validation.costs import MODELS, planned, with_table

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = json.loads((ROOT / "validation" / "results" / "costs-cpu.json").read_text())["rows"]


def test_the_page_has_the_table_of_the_data():
    page = (ROOT / "docs" / "explanation" / "costs.md").read_text(encoding="utf-8")
    assert with_table(page, ROWS) == page


@pytest.mark.parametrize(
    ("length", "devices", "strategy"),
    [(2048, 1, ""), (4096, 8, "ddp"), (8192, 64, "fsdp2"), (32_768, 8, "fsdp2, context_parallel 4")],
)
def test_the_data_are_what_the_plan_says(length, devices, strategy):
    of = {"context length": length, "GPUs": devices, "strategy": strategy}
    (row,) = [row for row in ROWS if of.items() <= row.items()]
    for model in planned(row["settings"]):
        assert model["memory GB (est.)"] == row[f"{model['model']} GB"] <= 80
        assert model["hours, h100 (est.)"] / 24 == pytest.approx(row[f"{model['model']} days"], abs=0.006)
    fewer = row["settings"].replace(f"accumulate={row['accumulate']}", f"accumulate={row['accumulate'] // 2}")
    if row["accumulate"] > 1:
        assert max(model["memory GB (est.)"] for model in planned(fewer)) > 80
    assert row["trio days"] == pytest.approx(sum(row[f"{name} days"] for name in MODELS))
