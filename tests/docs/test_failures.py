"""Every message of the failure guide is one that a fault made the program print, and the other way round."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDE = (ROOT / "docs" / "how-to" / "failures.md").read_text(encoding="utf-8")
ROWS = json.loads((ROOT / "validation" / "results" / "faults-cpu.json").read_text(encoding="utf-8"))["rows"]
MESSAGES = re.findall(r"^\| `(.+?)` \|", GUIDE, re.MULTILINE)


def matches(message: str, line: str) -> bool:
    return re.search(".*".join(map(re.escape, message.split("…"))), line) is not None


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_guide_was_printed(message):
    assert any(matches(message, row["says"]) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["fault"])
def test_what_a_fault_prints_is_in_the_guide(row):
    assert row["as expected"]
    if row["says"]:
        assert any(matches(message, row["says"]) for message in MESSAGES), row["says"]


def test_there_are_enough_of_them():
    assert len(ROWS) >= 25
    assert len(MESSAGES) >= 20
