"""Logging follows stderr: what replaces it gets the next message, and what was closed is left alone."""

import io
import logging
import sys

from lcprobe.studies.runtime import set_up_logging


def test_messages_go_to_what_stderr_is_when_they_come(monkeypatch):
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    set_up_logging()
    log = logging.getLogger("lcprobe.tests")
    log.warning("one")
    monkeypatch.setattr(sys, "stderr", second)
    seen = first.getvalue()
    first.close()
    log.warning("two")
    assert (seen, second.getvalue()) == ("one\n", "two\n")
