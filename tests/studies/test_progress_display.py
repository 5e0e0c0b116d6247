"""Progress: unwrapped lines now and then in a pipe, two lines of the terminal's width in place on a terminal."""

import io
import re

from lcprobe.studies import console, progress_display
from lcprobe.studies.progress_display import FIRST_SECONDS, LINE_SECONDS, ProgressDisplay

NOW = "run 2 of 9 s0-a-model-with-a-name-that-says-everything: step 400/976, 27.1K tokens/s, loss 3.21"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_every_few_seconds_and_whole(monkeypatch):
    stream, time = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    with ProgressDisplay(stream=stream, clock=lambda: time[0]) as display:
        for second in range(61):
            time[0] = float(second)
            display.show(f"{NOW} {second}", "study 6:10 left", 0.1)
    shown = [FIRST_SECONDS + LINE_SECONDS * i for i in range(4)]
    assert stream.getvalue().splitlines() == [f"{NOW} {s:.0f}, study 6:10 left" for s in shown]


def test_a_terminal_has_a_bar_within_its_width(monkeypatch):
    stream, time = Terminal(), [0.0]
    monkeypatch.setenv("COLUMNS", "80")
    with ProgressDisplay(stream=stream, clock=lambda: time[0]) as display:
        for second in range(3):
            time[0] = float(second)
            display.show(f"{NOW} {second}", "this run 0:55 left, study 6:10 left", 0.25)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue().replace("\r", "\n"))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    named = [line for line in lines if line.startswith("run 2 of 9 s0-a-model")]
    assert all(re.search(r"…: step 400/976, 27.1K tokens/s, loss 3.21 \d$", line) for line in named), "names give way"
    assert len(named) >= 3
    (bar, *_) = [line for line in lines if "━" in line]
    assert bar.endswith(" 25%, this run 0:55 left, study 6:10 left")
    drawn = bar.split(" 25%")[0]
    assert len(drawn) == 80 - len(" 25%, this run 0:55 left, study 6:10 left")


def test_processes_that_are_not_to_speak_say_nothing():
    stream = Terminal()
    with ProgressDisplay(shown=False, stream=stream) as display:
        display.show(NOW, "", 0.5)
    assert stream.getvalue() == ""
    assert console.width_of(stream) is not None
    assert progress_display.FRAME_SECONDS < FIRST_SECONDS
