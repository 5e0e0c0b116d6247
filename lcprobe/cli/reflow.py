"""Help for terminals that are narrower than it was written for: lines that had been wrapped are joined and wrapped
again, tables keep their columns, short lines such as equations stay as they are."""

import re
import textwrap

WRAPPED = 96
"""Length of a line and the next one's first word from which the line is taken to have been wrapped there."""
COMMANDS = {"lcprobe", "python"}
"""First words of examples, which are lines of their own."""
GAPS = re.compile(r"\S {2,}(?=\S)")
LIST = re.compile(r"^( +\S.*? {2,})\S")
"""A line that begins with a term, such as an option, before a column of text."""


def fitted(text: str, width: int) -> str:
    """Help within a width."""
    lines = text.splitlines()
    if max(map(len, lines), default=0) <= width:
        return text
    return "\n".join(wrapped for line in _joined(lines) for wrapped in _wrapped(line, width))


def _joined(lines: list[str]) -> list[str]:
    """Lines with those that continue them."""
    joined: list[str] = []
    last = ""
    for line in lines:
        if joined and _continues(line, joined[-1], last):
            joined[-1] = f"{joined[-1]} {line.strip()}"
        else:
            joined.append(line)
        last = line
    return joined


def _continues(line: str, first: str, last: str) -> bool:
    """Whether a line continues the one before it, because that was full. first: where their statement begins."""
    words = line.split()
    if not words or not last.strip() or _is_command(line) or LIST.match(line) or len(GAPS.findall(last)) > 1:
        return False
    return _indent(line) in (_indent(last), _hang(first)) and len(last) + 1 + len(words[0]) > WRAPPED


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    hang = _indent(line) + 4 if _is_command(line) or _hang(line) > width // 2 else _hang(line)
    return textwrap.wrap(line, width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False)


def _is_command(line: str) -> bool:
    word = line.split()[0]
    return word == "usage:" or (word in COMMANDS and line.startswith(" "))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _hang(line: str) -> int:
    """Where the text of a line begins: after its term, where it has one."""
    found = LIST.match(line)
    return _indent(line) if found is None else len(found.group(1))
