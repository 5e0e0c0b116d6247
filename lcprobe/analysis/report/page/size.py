"""What fits into one page: it opens at once and can be mailed, and the rest is named with its file.

Room is given in this order: the curves by length of every task among the pictures, the other pictures, short tables,
what makes the pictures interactive, the figures of the chapters, what makes those interactive, and long tables, the
shortest first. What is left is for the downloads (see `document`). Sizes are those of the markup, nearly: a few bytes
are added for each element.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from lcprobe.analysis.report.blocks import InlinedFigure, Section, Table
from lcprobe.analysis.report.page.pictures import TaskPictures

LIMIT = 4_000_000
"""Bytes of a page."""
MAX_ROWS = 3_000
"""Rows of a table that are on the page: more take a browser longer than a second."""
FIRST = ("length", "effective_length")
"""Charts of pictures that have room before all else."""
SHORT = 400
"""Rows up to which a table has room before most figures."""
PER_CELL, PER_FIGURE = 24, 400
NAMED = 6
"""Files that a note names."""


@dataclass(frozen=True)
class Piece:
    """A figure's picture, its specification alone, or a table; the larger `rank`, the sooner it is left out."""

    rank: tuple[int, int]
    size: int
    item: InlinedFigure | Table
    is_spec: bool = False


@dataclass(frozen=True)
class Kept:
    """What has room: figures by name, and ids of tables."""

    figures: dict[str, InlinedFigure] = field(default_factory=dict)
    tables: set[int] = field(default_factory=set)

    def of(self, figures: Sequence[InlinedFigure]) -> list[InlinedFigure]:
        """Those of some figures that have room."""
        return [self.figures[f.picture.name] for f in figures if f.picture.name in self.figures]

    def note(self, figures: Sequence[InlinedFigure]) -> str:
        """Names the files of those that have none."""
        left_out = [f"figures/{f.picture.name}.svg" for f in figures if f.picture.name not in self.figures]
        rest = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
        return f"Too large for this page: {', '.join(left_out[:NAMED])}{rest}." if left_out else ""


def fitted(
    shown: Sequence[TaskPictures], chapters: Sequence[Section], taken: int
) -> tuple[list[TaskPictures], list[Section]]:
    """Pictures and chapters without what does not fit into LIMIT, `taken` bytes of which are used already; each has
    notes about what is missing."""
    room, kept = LIMIT - taken, Kept()
    exhibits = [exhibit for one in shown for exhibit in one.exhibits]
    pieces = [
        piece
        for exhibit in exhibits
        for i, figure in enumerate(exhibit.figures)
        for piece in _parts(figure, (0 if figure.picture.chart in FIRST else 1, i), (3, i))
    ]
    pieces += [piece for chapter in chapters for piece in _pieces(chapter)]
    for piece in sorted(pieces, key=lambda piece: piece.rank):
        item = piece.item
        if piece.size > room:
            continue
        if isinstance(item, Table):
            if len(item.rows) > MAX_ROWS:
                continue
            kept.tables.add(id(item))
        elif not piece.is_spec:
            kept.figures[item.picture.name] = replace(item, spec="")
        elif item.picture.name in kept.figures:
            kept.figures[item.picture.name] = item
        else:
            continue
        room -= piece.size
    return [_pictures(one, kept) for one in shown], [_chapter(chapter, kept) for chapter in chapters]


def figure_size(figure: InlinedFigure) -> int:
    """Bytes of a figure on the page."""
    return sum(piece.size for piece in _parts(figure, (0, 0), (0, 0)))


def table_size(table: Table) -> int:
    """Bytes of a table on the page."""
    return sum(PER_CELL + len(value.encode()) for row in (table.columns, *table.rows) for value in row)


def _parts(figure: InlinedFigure, rank: tuple[int, int], rank_of_spec: tuple[int, int]) -> Iterator[Piece]:
    """A figure as a picture, and what makes it interactive."""
    yield Piece(rank, len(figure.svg.encode()) + 2 * len(figure.picture.caption) + PER_FIGURE, figure)
    if figure.spec:
        yield Piece(rank_of_spec, len(figure.spec.encode()), figure, is_spec=True)


def _pieces(chapter: Section) -> Iterator[Piece]:
    for i, figure in enumerate(chapter.figures):
        yield from _parts(figure, (4, i), (6, i))
    for _, others in chapter.folded:
        for i, figure in enumerate(others):
            yield from _parts(figure, (5, i), (7, i))
    for table in chapter.tables:
        size = table_size(table)
        yield Piece((8 if len(table.rows) > SHORT else 2, size), size, table)


def _pictures(one: TaskPictures, kept: Kept) -> TaskPictures:
    return replace(
        one, exhibits=[replace(e, figures=kept.of(e.figures), left_out=kept.note(e.figures)) for e in one.exhibits]
    )


def _chapter(chapter: Section, kept: Kept) -> Section:
    folded = [(title, kept.of(own)) for title, own in chapter.folded]
    figures = [*chapter.figures, *(f for _, own in chapter.folded for f in own)]
    notes = [kept.note(figures)]
    for table in chapter.tables:
        if id(table) not in kept.tables:
            file = table.file or f"page/{table.id.removeprefix('table-')}.csv"
            text = f"{table.title}: {len(table.rows):,} rows are too many for this page and are in tables/{file}."
            notes.append(text)
    return replace(
        chapter,
        figures=kept.of(chapter.figures),
        folded=[(title, own) for title, own in folded if own],
        tables=[table for table in chapter.tables if id(table) in kept.tables],
        left_out=[note for note in notes if note],
    )
