"""How far a study's training is, and how long it still takes: trials of a sweep and runs, those of before included.

Time left: of the run in hand at its own pace; of any other by its planned FLOPs, at the pace of what is done of its
model, else of all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcprobe.studies.planning.costs import training_flops
from lcprobe.studies.planning.plan import PlannedRun
from lcprobe.studies.progress_display import ProgressDisplay
from lcprobe.studies.status import read_status
from lcprobe.training.checkpoint import newest_progress
from lcprobe.training.progress import StepObserver, StepReport
from lcprobe.words import duration, short


@dataclass(frozen=True)
class Piece:
    """A run, or a trial of a sweep. group: its model; flops: of its budget, as planned; share: of it that is done, 0
    to 1; seconds: that this took."""

    group: str
    flops: float
    share: float = 0.0
    seconds: float = 0.0


def piece_of(run: PlannedRun, folder: Path) -> Piece:
    """A run as its folder says how far it is."""
    train = run.config.train
    piece = Piece(run.group, training_flops(run.matched.cost, train.trained_tokens))
    if not (folder / "checkpoints").is_dir():
        return piece
    done, status = newest_progress(folder / "checkpoints"), read_status(folder)
    seconds = float(status.get("seconds", done.seconds))
    return replace(piece, share=min(1.0, done.step / train.steps), seconds=seconds)


def share_done(pieces: Iterable[Piece]) -> float:
    """Of the planned FLOPs of all."""
    pieces = list(pieces)
    return sum(p.flops * p.share for p in pieces) / max(sum(p.flops for p in pieces), 1.0)


def seconds_left(pieces: Iterable[Piece]) -> float | None:
    """Of what is left of pieces: planned FLOPs at the pace of what is done of the same model, else of all. None where
    something is left and nothing is known."""
    pieces = list(pieces)
    known = [piece for piece in pieces if piece.share > 0 and piece.seconds > 0]
    left = 0.0
    for piece in pieces:
        if piece.share >= 1:
            continue
        like = [other for other in known if other.group == piece.group] or known
        if not like:
            return None
        pace = sum(p.seconds for p in like) / sum(p.flops * p.share for p in like)
        left += piece.flops * (1 - piece.share) * pace
    return left


class StudyProgress:
    """Shows the progress of named pieces: trials first, then runs, each in the order in which they are trained."""

    def __init__(self, display: ProgressDisplay, trials: Mapping[str, Piece], runs: Mapping[str, Piece]):
        self._display = display
        self._pieces = {"trial": dict(trials), "run": dict(runs)}

    def trial(self, name: str) -> StepObserver:
        """The observer of a trial."""
        return self._observer("trial", name)

    def run(self, name: str) -> StepObserver:
        """The observer of a run."""
        return self._observer("run", name)

    def finished(self, kind: str, name: str, seconds: float) -> None:
        """Count a piece as done. seconds: that it took; 0 where that is not known."""
        own = self._pieces[kind]
        own[name] = replace(own[name], share=1.0, seconds=seconds)

    def _observer(self, kind: str, name: str) -> StepObserver:
        own = self._pieces[kind]
        before, number = own[name], list(own).index(name) + 1
        head = f"{kind} {number} of {len(own)} {name}" if len(own) > 1 else name
        others = [piece for other, piece in own.items() if other != name]
        others += [piece for k, pieces in self._pieces.items() if k != kind for piece in pieces.values()]

        def observe(report: StepReport) -> None:
            share = report.step / report.steps
            piece = replace(before, share=share, seconds=before.seconds + report.seconds)
            own[name] = piece
            self._display.show(
                f"{head}: {line_of(report)}", rest_of(report, piece, others), share_done([*others, piece])
            )

        return observe


def line_of(report: StepReport) -> str:
    """`step 400/976, 27.1K tokens/s, loss 3.21`."""
    parts = [f"step {report.step}/{report.steps}"]
    if report.tokens_per_second is not None:
        parts.append(f"{short(report.tokens_per_second)} tokens/s")
    if report.loss is not None:
        parts.append(f"loss {report.loss:.2f}")
    return ", ".join(parts)


def rest_of(report: StepReport, piece: Piece, others: Sequence[Piece]) -> str:
    """`this run 0:55 left, study 6:10 left`; empty before the first step. piece: the run in hand."""
    if report.seconds_left is None:
        return ""
    own = f"{duration(report.seconds_left)} left"
    if not others:
        return own
    # what is done of the run in hand counts for the pace of others of its model, and its own rest not twice
    rest = seconds_left([*others, replace(piece, flops=piece.flops * piece.share, share=1.0)])
    assert rest is not None, "the run in hand has a pace"
    return f"this run {own}, study {duration(report.seconds_left + rest)} left"
