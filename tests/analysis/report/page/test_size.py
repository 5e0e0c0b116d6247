"""A page has a limited size: what is left out is named with its file, the pictures last."""

from dataclasses import replace

from lcprobe.analysis.report.blocks import InlinedFigure, Section, Table
from lcprobe.analysis.report.charts.picture import Picture
from lcprobe.analysis.report.page.pictures import Exhibit, TaskPictures
from lcprobe.analysis.report.page.size import LIMIT, MAX_ROWS, figure_size, fitted, table_size


def figure(name: str, size: int) -> InlinedFigure:
    return InlinedFigure(Picture(name, "length", "single", "f", "title", "caption"), "x" * size, "{}")


def table(title: str, n: int, width: int = 10) -> Table:
    return Table(title, "", ["a", "b"], [["x" * width, "y"]] * n, "cells.csv")


def pictures(*figures: InlinedFigure) -> list[TaskPictures]:
    return [TaskPictures("p", "single", "f", [Exhibit("e", "t", figures, [])])]


def test_everything_stays_where_there_is_room():
    chapter = Section("c", "C", figures=[figure("b", 1000)], tables=[table("Small", 5), table("Long", 500)])
    shown, (kept,) = fitted(pictures(figure("a", 1000)), [chapter], 0)
    assert [(e.figures, e.left_out) for e in shown[0].exhibits] == [([figure("a", 1000)], "")]
    assert (kept.figures, kept.tables, kept.left_out) == (chapter.figures, chapter.tables, [])


def test_room_goes_to_pictures_then_short_tables_then_figures_then_long_tables():
    picture, own = figure("a", 900_000), figure("b", 900_000)
    small, long = table("Small", 5), table("Long", 2_000, 400)
    chapter = Section("c", "C", folded=[("other formats", [own])], tables=[long, small])
    needed = figure_size(picture) + table_size(small)
    for room, kept_own, kept_long in (
        (needed, False, False),
        (needed + figure_size(own), True, False),
        (needed + table_size(long), False, True),  # what is smaller may still fit
        (needed + figure_size(own) + table_size(long), True, True),
    ):
        shown, (kept,) = fitted(pictures(picture), [chapter], LIMIT - room)
        assert shown[0].exhibits[0].figures == [picture]
        assert small in kept.tables
        assert bool(kept.folded) == kept_own
        assert (long in kept.tables) == kept_long
        names = " ".join(kept.left_out)
        assert ("figures/b.svg" in names) != kept_own
        assert ("Long: 2,000 rows are too many for this page and are in tables/cells.csv" in names) != kept_long


def test_pictures_come_before_tables_and_the_curve_by_length_of_every_task_first():
    curve, small = figure("a", 400_000), table("Small", 30)
    large = InlinedFigure(replace(curve.picture, name="m", chart="heatmap"), "x" * 400_000, "")
    two = [TaskPictures("p", task, "f", [Exhibit("h", "t", [large], []), Exhibit("e", "t", [own], [])])
           for task, own in (("one", curve), ("two", figure("b", 400_000)))]  # fmt: skip
    for room, n_heatmaps, n_tables in ((2, 0, 0), (3, 1, 0)):
        shown, (kept,) = fitted(two, [Section("c", "C", tables=[small])], LIMIT - room * figure_size(curve) - 10)
        assert [len(one.exhibits[1].figures) for one in shown] == [1, 1]
        assert {len(one.exhibits[0].figures) for one in shown} == {n_heatmaps}  # the same figure twice
        assert len(kept.tables) == n_tables


def test_figures_of_chapters_stop_being_interactive_then_go_and_pictures_after_them():
    picture, own = replace(figure("a", 1000), spec="x" * 5000), replace(figure("b", 1000), spec="y" * 5000)
    without = figure_size(replace(own, spec=""))
    chapter = Section("c", "C", figures=[own])
    for lacking, spec, specs_of_own in (
        (0, picture.spec, [own.spec]),
        (1, picture.spec, [""]),
        (5001, picture.spec, []),
        (5000 + without + 1, "", [""]),
    ):
        room = figure_size(picture) + figure_size(own) - lacking
        shown, (kept,) = fitted(pictures(picture), [chapter], LIMIT - room)
        assert [f.spec for f in shown[0].exhibits[0].figures] == [spec]
        assert [f.spec for f in kept.figures] == specs_of_own


def test_pictures_without_room_are_named_beside_their_findings():
    shown, _ = fitted(pictures(*(figure(f"n{i}", 1000) for i in range(8))), [], LIMIT)
    exhibit = shown[0].exhibits[0]
    assert exhibit.figures == []
    assert exhibit.left_out.startswith("Too large for this page: figures/n0.svg, ")
    assert exhibit.left_out.endswith(" and 2 more.")


def test_a_figure_that_does_not_fit_whole_stays_as_a_picture():
    whole = replace(figure("a", 1000), spec="x" * 5000)
    shown, _ = fitted(pictures(whole), [], LIMIT - figure_size(whole) + 1)
    assert shown[0].exhibits[0].figures == [replace(whole, spec="")]
    assert shown[0].exhibits[0].left_out == ""


def test_tables_of_very_many_rows_are_never_on_the_page():
    _, (kept,) = fitted([], [Section("c", "C", tables=[table("Cells", MAX_ROWS + 1, 1)])], 0)
    assert kept.tables == []
    assert len(kept.left_out) == 1
