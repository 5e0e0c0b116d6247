"""What fits into one page: it opens at once and can be mailed, and the rest is named with its file.

Room is given first to the first picture of each exhibit, then to tables that are short, to the other pictures, to the
figures of the chapters, and to long tables, the shortest first. Sizes are those of the markup, nearly: a few bytes
are added for each element.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lcprobe.analysis.report.blocks import InlinedFigure, Section, Table
from lcprobe.analysis.report.page.pictures import TaskPictures

LIMIT = 4_000_000
"""Bytes of a page."""
MAX_ROWS = 3_000
"""Rows of a table that are on the page: more take a browser longer than a second."""
PER_CELL, PER_FIGURE = 24, 400
NAMED = 6
"""Files that a note names."""


@dataclass(frozen=True)
class Piece:
    """A figure or a table of a chapter, and how soon it is left out: the larger `rank`, the sooner."""

    rank: tuple[int, int]
    size: int
    item: InlinedFigure | Table


def fitted(
    shown: Sequence[TaskPictures], chapters: Sequence[Section], taken: int
) -> tuple[list[TaskPictures], list[Section]]:
    """Pictures and chapters without what does not fit into LIMIT, `taken` bytes of which are used already; each has
    notes about what is missing."""
    room, kept = LIMIT - taken, set[int]()
    exhibits = [exhibit for one in shown for exhibit in one.exhibits]
    pieces = [Piece((2 if i else 0, i), figure_size(f), f) for e in exhibits for i, f in enumerate(e.figures)]
    pieces += [piece for chapter in chapters for piece in _pieces(chapter)]
    for piece in sorted(pieces, key=lambda piece: piece.rank):
        if piece.size <= room and not (isinstance(piece.item, Table) and len(piece.item.rows) > MAX_ROWS):
            room -= piece.size
            kept.add(id(piece.item))
    return [_pictures(one, kept) for one in shown], [_chapter(chapter, kept) for chapter in chapters]


def figure_size(figure: InlinedFigure) -> int:
    """Bytes of a figure on the page."""
    return len(figure.svg.encode()) + len(figure.spec.encode()) + 2 * len(figure.picture.caption) + PER_FIGURE


def table_size(table: Table) -> int:
    """Bytes of a table on the page."""
    return sum(PER_CELL + len(value.encode()) for row in (table.columns, *table.rows) for value in row)


def _pieces(chapter: Section) -> Iterator[Piece]:
    for i, figure in enumerate(chapter.figures):
        yield Piece((3, i), figure_size(figure), figure)
    for _, others in chapter.folded:
        for i, figure in enumerate(others):
            yield Piece((4, i), figure_size(figure), figure)
    for table in chapter.tables:
        yield Piece((5 if table.folded else 1, table_size(table)), table_size(table), table)


def _pictures(one: TaskPictures, kept: set[int]) -> TaskPictures:
    exhibits = []
    for exhibit in one.exhibits:
        figures = [f for f in exhibit.figures if id(f) in kept]
        note = _figure_note([f for f in exhibit.figures if id(f) not in kept])
        exhibits.append(replace(exhibit, figures=figures, left_out=note))
    return replace(one, exhibits=exhibits)


def _chapter(chapter: Section, kept: set[int]) -> Section:
    folded = [(title, [f for f in own if id(f) in kept]) for title, own in chapter.folded]
    figures = [*chapter.figures, *(f for _, own in chapter.folded for f in own)]
    notes = [_figure_note([f for f in figures if id(f) not in kept])]
    for table in chapter.tables:
        if id(table) not in kept:
            file = table.file or f"page/{table.id.removeprefix('table-')}.csv"
            text = f"{table.title}: {len(table.rows):,} rows are too many for this page and are in tables/{file}."
            notes.append(text)
    return replace(
        chapter,
        figures=[f for f in chapter.figures if id(f) in kept],
        folded=[(title, own) for title, own in folded if own],
        tables=[table for table in chapter.tables if id(table) in kept],
        left_out=[note for note in notes if note],
    )


def _figure_note(left_out: Sequence[InlinedFigure]) -> str:
    if not left_out:
        return ""
    names = [f"figures/{f.picture.name}.svg" for f in left_out[:NAMED]]
    rest = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    return f"Too large for this page: {', '.join(names)}{rest}."
