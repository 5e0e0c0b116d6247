"""Tables of contrasts say of each row which lengths it is over, and over how many training seeds it was tested."""

from dataclasses import replace

import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.exports.choices import Selection
from lcprobe.analysis.report.exports.selection import selected
from lcprobe.analysis.report.finding_tables import extension_table, model_pair_table, training_length_table
from lcprobe.analysis.report.tables import contrast_rows
from tests.analysis.fabricated import flat, plan, records, run, several_training_lengths, study, task, window

LENGTHS = (64, 128, 256, 512)
CELLS = plan(["single"], lengths=LENGTHS, depths=[0.0, 0.5, 1.0], n=20)


@pytest.fixture(scope="module")
def results() -> Results:
    """a and b are at the ceiling up to the training length; past it b falls. c has one seed."""
    runs = [run(f"{name}-s{seed}", group=name, seed=seed) for name in ("a", "b") for seed in (0, 1)] + [run("c")]
    behaviours = {r.name: window(150) if r.group == "b" else flat(0.5 if r.group == "c" else 1.0) for r in runs}
    return analyse(study(runs, [task("single")], CELLS), records(behaviours, CELLS))


def rows_of(table) -> list[dict[str, str]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_row_over_several_lengths_names_them_and_no_two_rows_of_a_pair_have_the_same_place(results):
    rows = rows_of(model_pair_table(results))
    for pair in ("a − b", "a − c", "b − c"):
        assert [row["length"] for row in rows if row["model"] == pair] == [
            "up to the training length (64 to 128)", "64", "128", "past the training length (256 to 512)", "256", "512",
        ]  # fmt: skip
    joint = [row["length"] for row in contrast_rows(results) if row["kind"] == "models"]
    assert joint == [None] * 6, "the longest of its lengths is not its own"


def test_over_seeds_is_told_of_tests_alone(results):
    for row in rows_of(model_pair_table(results)):
        if not row["difference"]:
            assert (row["over seeds"], row["verdict"][:12]) == ("", "not testable")
        elif row["model"] == "a − b":
            assert " to " in row["over seeds"]
        else:
            assert row["over seeds"] == "one seed"


def test_training_lengths_and_extensions_that_were_not_tested_have_no_seeds_either():
    facts, _ = several_training_lengths(lambda name, context: 1e6 if context == 64 else 2e6, names=("m",))
    perfect = records({r.name: flat(1.0) for r in facts.runs}, [*facts.expected_cells])
    rows = rows_of(training_length_table(analyse(facts, perfect)))
    assert {(row["difference"], row["over seeds"]) for row in rows} == {("", "")}
    runs = [run(f"m-s{seed}", group="m", seed=seed) for seed in (0, 1)]
    runs += [replace(r, name=f"{r.name}+yarn", base=r.name, extension="yarn") for r in runs]
    behaviours = {r.name: window(10_000 if r.extension == "yarn" else 150) for r in runs}
    rows = rows_of(extension_table(analyse(study(runs, [task("single")], CELLS), records(behaviours, CELLS))))
    assert {bool(row["over seeds"]) == bool(row["difference"]) for row in rows} == {True}
    assert len({bool(row["difference"]) for row in rows}) == 2


def test_a_selection_of_lengths_has_what_is_over_these_alone(results):
    def places(*lengths: int) -> set[str]:
        rows = rows_of(model_pair_table(selected(results, Selection(lengths=lengths))))
        return {row["length"] for row in rows}

    assert places(512) == {"512"}
    assert places(256, 512) == {"past the training length (256 to 512)", "256", "512"}
