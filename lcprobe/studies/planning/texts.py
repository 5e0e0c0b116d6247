"""The text of a run: at its place, or prepared before, for runs that go on after their text was moved or deleted."""

from collections.abc import Iterable
from pathlib import Path

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import check_corpus
from lcprobe.data.prepare import find_prepared
from lcprobe.errors import ConfigError, DataError
from lcprobe.training.checkpoint import newest_progress


def text_trained_on(data: DataConfig, runs: Iterable[Path]) -> str:
    """ "" where a run's text is at its place; else the digest of the text that one of these runs was trained on, of
    which prepared data are there. runs: folders of the run and of others with the same corpus.

    Raises ConfigError and DataError as `check_corpus` where there is neither.
    """
    try:
        check_corpus(data.corpus, data.text_field)
    except (ConfigError, DataError):
        for run in runs:
            digest = newest_progress(run / "checkpoints").corpus_digest
            if find_prepared(data, digest) is not None:
                return digest
        raise
    return ""
