"""The transcription agrees with itself: the study's own sums and steps come out of its cells, but where a mark says why not."""

from collections import defaultdict

import pytest

from lcprobe.analysis.published.tables import (
    MEAN,
    NEEDLE,
    SAMPLES,
    cells,
    claims,
    differences_of_tasks,
    models,
    published_means,
    ruler_cells,
    ruler_tasks,
    same_tasks,
)
from lcprobe.models.checkpoints.known import known

CELLS = cells()


def kinds(cell):
    return {mark.kind for mark in cell.marks}


def test_means_over_the_tasks_are_those_of_table_1():
    """All 37 of the 40 means that can be computed: three have unreadable inputs."""
    by_place = defaultdict(list)
    for cell in CELLS:
        if cell.table == "7-19":
            by_place[cell.model, cell.length].append(cell.percent)
    computed = 0
    for cell in CELLS:
        inputs = by_place[cell.model, cell.length]
        if cell.task == MEAN and None not in inputs:
            assert len(inputs) == len(ruler_tasks()) == cell.parts
            assert sum(inputs) / len(inputs) == pytest.approx(cell.percent, abs=0.0051), cell
            computed += 1
    assert computed == 37


@pytest.mark.parametrize("table", ["1", "2", "3"])
def test_the_last_column_is_the_mean_of_its_row_but_where_a_note_says_what_that_is(table):
    for model in models():
        row = [cell.percent for cell in CELLS if cell.table == table and cell.model == model]
        printed, note = published_means()[table, model]
        mean = sum(row) / len(row)
        assert (mean == pytest.approx(printed, abs=0.011)) == (not note), (model, mean)
        assert not note or f"{mean:.2f}" in note


def test_cells_are_counts_of_250_samples_but_the_incomplete_runs():
    """A percentage with two decimals is within .005 of a multiple of 1 / (250 x references)."""
    read = [cell for cell in CELLS if cell.table in ("4", "7-19") and cell.percent is not None]
    for cell in read:
        trials = SAMPLES * cell.references
        off = abs(cell.percent - round(cell.percent / 100 * trials) / trials * 100)
        assert (off <= 0.0051) == ("incomplete run" not in kinds(cell)), cell
    assert sum("incomplete run" in kinds(cell) for cell in read) == 2
    assert {cell for cell in CELLS if cell.percent is None} == {c for c in CELLS if "damaged" in kinds(c)}


def test_a_depth_of_table_2_is_the_mean_of_table_4_but_the_marked_conflict():
    formats = defaultdict(list)
    for cell in CELLS:
        if cell.table == "4":
            formats[cell.model, cell.length, cell.depth].append(cell.percent)
    compared = [c for c in CELLS if c.table in "23" and (c.model, c.length, c.depth) in formats and c.model != "TPP"]
    compared += [c for c in CELLS if c.table == "2" and c.depth in (0, 50, 100) and c.model == "TPP"]
    assert len(compared) == 15
    for cell in compared:
        inputs = formats[cell.model, cell.length, cell.depth]
        agrees = sum(inputs) / 3 == pytest.approx(cell.percent, abs=0.006)
        assert agrees == ("conflict" not in kinds(cell)), cell


def test_rows_with_mixed_formats_have_the_steps_of_one_format_between_and_of_three_at_the_ends():
    mixed = [cell for cell in CELLS if cell.table in ("2", "3") and len({*kinds(cell)} & {"mixed formats"})]
    for cell in mixed:
        whole = abs(cell.percent * SAMPLES / 100 - round(cell.percent * SAMPLES / 100)) < 0.02
        assert whole or cell.parts == 3, cell
    assert {cell.model for cell in mixed} == {"RG", "SL", "RWKV", "RG-IT", "SL-IT"}
    assert {(cell.depth, cell.parts) for cell in mixed} == {
        (d, 3 if d in (0, 50, 100) else 1) for d in (0, 20, 40, 50, 60, 80, 100)
    }


def test_every_mark_is_of_some_cell_and_cwe_changes_between_2048_and_4096():
    below, above = (
        {m.reason for c in CELLS if c.task == "cwe" and c.length == length for m in c.marks}
        for length in (2048, 4096)
    )
    assert len(below) == len(above) == 1
    assert below != above
    used = {mark.reason for cell in CELLS for mark in cell.marks}
    from lcprobe.analysis.published.tables import _rows

    assert used == {row["reason"] for row in _rows("marks")}


def test_cells_are_unique_and_complete():
    places = [(c.table, c.model, c.task, c.formats, c.length, c.depth) for c in CELLS]
    assert len(places) == len(set(places)) == 40 + 56 + 56 + 81 + 520
    assert {c.task for c in CELLS} == {MEAN, NEEDLE, *ruler_tasks()}


def test_checkpoints_are_those_that_are_known_by_name():
    """The abbreviation of a hub id, which is what a probed checkpoint is compared by, is in known.yaml."""
    named = {facts.paper: set() for facts in known().values() if facts.paper}
    for name, facts in known().items():
        if facts.paper:
            named[facts.paper].add(name)
    assert named == {m.name: {m.checkpoint, *m.other_names} for m in models().values()}
    wrappers = {facts.paper: facts.paper_template for facts in known().values() if facts.paper}
    assert wrappers == {m.name: m.wrapper for m in models().values()}


def percent(table, model, task, length, depth=None, formats=None):
    (cell,) = (
        c
        for c in CELLS
        if (c.table, c.model, c.task, c.length, c.depth) == (table, model, task, length, depth)
        and (formats is None or str(c.formats[0]) == formats)
    )
    return cell.percent


def test_numbers_in_the_claims_are_those_of_the_tables():
    text = " ".join(claims().values())
    falls = [percent("1", m, MEAN, 1024) - percent("1", m, MEAN, 2048) for m in models()]
    assert f"{min(falls):.1f} to {max(falls):.1f} points" in text
    ceiling = [m for m in models() if min(c.percent for c in CELLS if c.table == "2" and c.model == m) >= 98]
    assert len(ceiling) == 4
    hybrid = [c.percent for c in CELLS if c.table == "4" and c.model == "M2A" and c.formats[0].haystack == "essay"]
    inside, beyond = hybrid[:6], hybrid[-6:]
    assert f"{int(min(beyond))} to {round(max(beyond))} %" in text
    pure = [c.percent for c in CELLS if c.table == "4" and c.model == "Mamba2" and c.formats[0].haystack == "essay"]
    assert (
        f"{round(min(inside))} to {round(max(inside))} % against {round(min(pure[:6]))} to {round(max(pure[:6]))} %"
        in text
    )
    assert percent("4", "Mamba2", NEEDLE, 4096, 0, "repeat/word/number") == 80.4


def test_every_task_says_how_ours_differs():
    assert set(differences_of_tasks()) == {*ruler_tasks(), NEEDLE}


def test_tasks_that_are_the_same_are_retrieval_of_needles_in_text():
    assert same_tasks() == {NEEDLE, "niah_multikey_1", "niah_multivalue", *(f"niah_single_{i}" for i in (1, 2, 3))}


def test_derived_cells_are_table_1_and_three_depths_of_each_matched_model_in_tables_2_and_3():
    derived = [cell for cell in CELLS if cell.derived]
    assert sum(cell.table == "1" for cell in derived) == 40
    others = {(c.table, c.model, c.depth) for c in derived if c.table != "1"}
    assert others == {(t, m, d) for t in "23" for m in ("Mamba2", "M2A", "TPP") for d in (0, 50, 100)}
    assert len(ruler_cells()) == 520
