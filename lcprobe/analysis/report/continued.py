"""Runs whose training continued from another run: from which, with which extension, and on how many tokens in
total."""

from collections.abc import Iterator, Sequence

from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.wording import READ_FIRST, Sentence, listed


def continued(runs: Sequence[RunFacts]) -> Iterator[Sentence]:
    """A warning that names continued runs: they have been trained on more tokens than their own budget."""
    trained = [run for run in runs if run.started_from and run.extension == "none"]
    if trained:
        own = listed(_origin(run) for run in trained)
        text = f"Continued from other runs: {own}. Tokens count from there; totals include those of the source"
        text += ", and runs from random weights of equal tokens have seen fewer."
        names = tuple(dict.fromkeys(run.group for run in trained))
        yield Sentence(READ_FIRST, text, True, kind="Continued from other runs", about=names, unit="model")


def _origin(run: RunFacts) -> str:
    """Such as `L256-rope from L64-rope with yarn(factor=4) (12,000 tokens in total)`."""
    method = f"with {run.trained_extension}" if run.trained_extension else "without an extension"
    total = f"{run.tokens_before + run.tokens:,} tokens in total" if run.tokens_before else "total tokens unknown"
    return f"{run.name} from {run.started_from} {method} ({total})"
