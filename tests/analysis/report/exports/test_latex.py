"""LaTeX of tables: whatever a cell has, the table keeps its rows and columns and prints the cell's characters."""

import re

import pandas as pd
import pytest

from lcprobe.analysis.report.blocks import Table
from lcprobe.analysis.report.exports.latex import MAX_ROWS, latex_table, latex_text

HOSTILE = [
    r"\input{/etc/passwd}", r"a & b \\ c", "50 % of #1", "x_1^2 ~ {y}", "$\\end{tabular}$", "[2ex]", "*", "a--b---c - ", "?`!`",
    "<<x>>", "l1\nl2\r\tl3", "0.98 [0.95, 0.99]", "−0.1 to +0.2", "1–2 × ≥ 3", "\x00\x1b[31m", "“q”", "",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_character_is_a_command(text):
    """What is left after the commands that are written here has nothing that LaTeX reads as one."""
    made = latex_text(text)
    assert "\n" not in made
    made = made.replace("--", " ")  # the dash between numbers
    rest = re.sub(r"\\(text[a-z]+|ldots)\{\}|\\[{}$&#%_,]|\$\\?[a-z^0-9-]+\$|[-,`']+\{\}", "", made)
    assert not set(rest) & set('\\{}$&#%_^"|<>'), made
    for ligature in ("--", "``", "''", ",,", "?`", "!`"):
        assert ligature not in rest.replace("~", ""), made


@pytest.mark.parametrize("text", ["a_b", "100 %", "a & b", "#1", "{x}", "$5", "x^2", "a~b", "c:\\dir"])
def test_the_usual_characters_are_escaped_as_pandas_does(text):
    theirs = pd.DataFrame([[text]]).style.format(escape="latex").hide(axis=0).hide(axis=1).to_latex()
    cell = theirs.splitlines()[1].removesuffix(r" \\").strip()
    assert latex_text(text) == re.sub(r"(\\text[a-z]+) ?", r"\1{}", cell)


def table(rows) -> Table:
    return Table("Scores [draft]", "50 % of a & b.", ["name", "n", "empty", "long"], rows)


def test_rows_and_columns_are_kept_and_empty_columns_left_out():
    rows = [[text, str(i), "", f"{text} {'word ' * 12}"] for i, text in enumerate(HOSTILE)]
    made = latex_table(table(rows), "scores").splitlines()
    body = made[made.index("\\midrule") + 1 : made.index("\\bottomrule")]
    assert len(body) == len(rows)
    for line in body:
        assert line.endswith(r" \\")
        assert len(re.findall(r"(?<!\\)&", line)) == 2
        assert line[0] not in "[*", "would be an argument of the line break before it"
    assert "\\begin{tabular}{@{}lrp{0.45\\linewidth}@{}}" in made
    assert "\\caption{Scores [draft]. 50 \\% of a \\& b.}\\label{tab:scores}" in made
    assert [made.count(f"\\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1]


def test_a_long_table_may_break_between_pages_and_repeats_its_head():
    made = latex_table(table([["a", str(i), "", "b"] for i in range(MAX_ROWS + 1)]), "long")
    assert made.count("\\begin{longtable}") == made.count("\\end{longtable}") == 1
    assert made.count("name & n & long") == 2
    assert made.count("\\endfirsthead") == made.count("\\endhead") == made.count("\\endlastfoot") == 1
    assert "\\begin{table}" not in made


def test_columns_of_long_texts_share_the_line():
    long = "a text that is so long that it is set in several lines of its column"
    made = latex_table(Table("T", "", ["a", "b", "c"], [["x", long, long]]), "t")
    widths = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", made)]
    assert len(widths) == 2
    assert sum(widths) <= 0.5
