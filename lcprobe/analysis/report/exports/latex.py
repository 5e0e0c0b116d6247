r"""Tables as LaTeX, with the rules of booktabs; long ones as longtable. A document needs

    \usepackage[T1]{fontenc} \usepackage{textcomp,booktabs,longtable}

and `\input{tables/page/effective-length}`. Every character that LaTeX reads as a command is escaped, and those that
its fonts lack (minus, comparison signs) are commands; `tests/analysis/report/exports` has the ways in which a cell
could break a table: `[` after a line break, ligatures, a backslash.
"""

from lcprobe.analysis.report.blocks import Table

MAX_ROWS = 40
"""Rows of a table on one page; longer ones may break between pages."""
LONG_WIDTH = 0.45
"""Of all columns of long texts together, of the line."""
COMMANDS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "-": "-{}", ",": ",{}", "−": "$-$", "–": "--", "—": "---", "×": r"$\times$", "±": r"$\pm$", "≥": r"$\geq$",
    "≤": r"$\leq$", "≈": r"$\approx$", "→": r"$\rightarrow$", "…": r"\ldots{}", "·": r"$\cdot$", "µ": r"$\mu$",
    "μ": r"$\mu$", "²": r"$^2$", "³": r"$^3$", "‘": "`{}", "’": "'{}", "“": "``{}", "”": "''{}", "\u00a0": "~",
    "\u202f": r"\,", "✓": r"$\surd$", "✗": r"$\times$", "†": r"\textdagger{}", "°": r"\textdegree{}",
    "Δ": r"$\Delta$", "α": r"$\alpha$", "β": r"$\beta$", "σ": r"$\sigma$",
}  # fmt: skip
"""What stands for a character. Some that are harmless alone are broken up where two would be one (-- and ,,)."""
LIGATURES = {"-{}": "-", ",{}": ","}


def latex_text(text: str) -> str:
    """Text as LaTeX prints it, on one line."""
    text = text.replace(">=", "≥").replace("<=", "≤")
    line = " ".join("".join(c if c.isprintable() or c in "\u00a0\u202f" else " " for c in text).split(" ")).strip()
    words = []
    for i, character in enumerate(line):
        command = COMMANDS.get(character, character)
        alone = command in LIGATURES and line[i + 1 : i + 2] != character
        words.append(LIGATURES[command] if alone else command)
    return "".join(words)


def latex_table(table: Table, label: str) -> str:
    """A table as LaTeX: numbers right, words left, long texts in paragraphs; columns without any value are left
    out. label: what follows `tab:`."""
    used = [i for i, _ in enumerate(table.columns) if any(row[i] for row in table.rows)] or [0]
    kinds = table.kinds
    n_long = sum(kinds[i] == "long" for i in used)
    letters = {"number": "r", "word": "l", "long": f"p{{{LONG_WIDTH / max(n_long, 1):.3g}\\linewidth}}"}
    columns = "".join(letters[kinds[i]] for i in used)
    head = _row([table.columns[i] for i in used])
    body = [_row([row[i] for i in used]) for row in table.rows]
    caption = f"\\caption{{{latex_text(_caption(table))}}}\\label{{tab:{label}}}"
    if len(body) <= MAX_ROWS:
        lines = ["\\begin{table}", "\\centering", "\\small", caption, f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}"]
        lines += ["\\toprule", head, "\\midrule", *body, "\\bottomrule", "\\end{tabular}", "\\end{table}"]
    else:
        lines = ["{\\small", f"\\begin{{longtable}}{{@{{}}{columns}@{{}}}}", f"{caption} \\\\", "\\toprule", head]
        lines += ["\\midrule", "\\endfirsthead", "\\toprule", head, "\\midrule", "\\endhead", "\\bottomrule"]
        lines += ["\\endlastfoot", *body, "\\end{longtable}}"]
    return "\n".join(lines) + "\n"


def _caption(table: Table) -> str:
    return f"{table.title.rstrip('.')}. {table.caption}".strip()


def _row(cells: list[str]) -> str:
    """A row; one that begins with [ or * would be an argument of the line break before it."""
    row = " & ".join(map(latex_text, cells))
    return ("{}" if row[:1] in ("[", "*") else "") + row + r" \\"
