"""What commands print: within the width of a terminal there, never wrapped in pipes."""

import io
from types import SimpleNamespace

import pytest

from lcprobe.studies import console
from lcprobe.studies.console import note_lines, print_rows, say
from lcprobe.studies.text_table import Column, table_lines

WORDS = "the loss of a run is the mean over all predictions of its batches, text and episodes alike, in nats a token"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["pipe", "terminal"])
def stream(request, monkeypatch):
    made = Terminal() if request.param == "terminal" else io.StringIO()
    monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=made, stderr=made))
    monkeypatch.setenv("COLUMNS", "80")
    return made


def lines_of(stream) -> list[str]:
    return stream.getvalue().splitlines()


def test_layouts_are_printed_as_they_are_written(capsys):
    print_rows([{"layout": "[mamba2 x 3, attention] x 2", "n": 1}], "models")
    assert "[mamba2 x 3, attention] x 2" in capsys.readouterr().out


def test_a_statement_is_one_line_in_a_pipe_and_wrapped_at_words_on_a_terminal(stream):
    path = "/".join(["a-folder-of-results"] * 6)
    say(WORDS, f"report: {path}", indent=2)
    lines = lines_of(stream)
    assert path in stream.getvalue(), "paths stay whole, so that they can be copied"
    if stream.isatty():
        assert max(len(line) for line in lines if path not in line) <= 80
        assert " ".join(stream.getvalue().split()).startswith(WORDS)
    else:
        assert lines == [f"  {WORDS}", f"  report: {path}"]


def test_a_table_fits_a_terminal_and_loses_nothing_and_is_whole_in_a_pipe(stream):
    rows = [
        {"model": f"positional=rope-L{n}-a-model-with-a-long-name", "same": "yes", **{f"column {i}": f"{n}x{i}" for i in range(20)}}
        for n in (64, 128)
    ]  # fmt: skip
    print_rows(rows, "many columns")
    shown = stream.getvalue()
    for row in rows:
        assert all(str(value) in shown for name, value in row.items() if name != "model")
    if stream.isatty():
        assert max(map(len, lines_of(stream))) <= 80
        assert "in every row: same yes" in shown
    else:
        assert len(lines_of(stream)) == 2 + 2 + len(rows)
        assert all(row["model"] in shown for row in rows)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("n", [1, 3, 9, 45])
def test_no_line_of_a_table_is_wider_than_asked(n, width):
    names = [f"{'grid-' * (i % 7)}model-{i}" for i in range(n)]
    columns = [Column("model", names)]
    columns += [Column(f"a title of column {j}", [f"{i * 10**j:,}" for i in range(n)], number=True) for j in range(9)]
    lines = table_lines(columns, width)
    assert max(map(len, lines)) <= width


def test_control_characters_are_not_obeyed(capsys):
    say("a\x1b[31mb\nc")
    assert capsys.readouterr().out == "a[31mb c\n"


def test_notes_are_folded_by_kind():
    notes = {"schedules": ["one", "two", "one"], "nothing": []}
    assert note_lines(notes, "--full") == ["2 notes on schedules: one (and 1 more: --full)"]
    assert note_lines({"runs": ["a"]}, "--full") == ["1 note on runs: a"]
    assert note_lines(notes, "", full=True) == ["schedules: one", "schedules: two"]
