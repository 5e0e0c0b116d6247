"""How far preparing a corpus is, in words."""

from lcprobe.data.preparing.progress import PrepareObserver, PrepareReport
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.words import counted, duration, short, short_bytes


def preparing(display: ProgressDisplay, name: str) -> PrepareObserver:
    """Shows preparing on a display. name: of the corpus."""
    return lambda report: display.show(f"{name}: {line_of(report)}", rest_of(report), report.share)


def line_of(report: PrepareReport) -> str:
    """`preparing: 1.20 GB of text, 345,678 documents, 310M tokens, 25.1 MB/s`."""
    parts = [f"{report.what}: {short_bytes(report.chars)} of text", counted(report.documents, "document")]
    if report.tokens:
        parts.append(f"{short(report.tokens)} tokens")
    return ", ".join([*parts, f"{short_bytes(report.chars_per_second)}/s"])


def rest_of(report: PrepareReport) -> str:
    """`2:10 left`; empty where that is not known."""
    return "" if report.seconds_left is None else f"{duration(report.seconds_left)} left"
