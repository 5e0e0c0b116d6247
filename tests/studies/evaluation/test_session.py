"""What the grid cannot do with the given checkpoints is refused before the corpus is prepared."""

from dataclasses import asdict

import pytest

from lcprobe.config import parse
from lcprobe.errors import LcprobeError
from lcprobe.files import write_json
from lcprobe.studies.evaluation import readers
from lcprobe.studies.evaluation.session import open_session
from lcprobe.studies.evaluation.sources import TrainedCheckpoint
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.training.checkpoint import Progress

SINGLE = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}


class Prepared(Exception):
    """The corpus would have been prepared."""


def target(folder, length, grids, **model):
    """A checkpoint with its step alone, trained at a length, with a learned table of as many positions."""
    path = folder / f"L{length}"
    path.mkdir()
    write_json(path / "state.json", asdict(Progress(step=1)))
    sizes = {"d_model": 16, "d_ff": 16, "vocab_size": 4096, "mixers": {"attention": {"head_dim": 8}}}
    config = parse({
        "model": {"layout": "attention+mlp", "positional": "learned", "context_length": length} | sizes | model,
        "train": {"tokens": 1024, "batch_tokens": length, "context_length": length},
        "probe": {"tasks": {"single": SINGLE}, "grids": grids},
    })  # fmt: skip
    return ProbeTarget(path.name, TrainedCheckpoint(path, None), config)


@pytest.mark.parametrize(
    ("grids", "start", "words"),
    [
        ([{"lengths": [1, 0.0125]}], "probe.grids[0].lengths: given 0.0125", "whole tokens of 64"),
        ([{}, {"lengths": ["64t", "8t"]}], "probe.grids[1].lengths: given '8t for single", "data.tokenizer is shipped"),
        ([{"lengths": ["256t", "1Kt"]}], "probe.grids: given 'cells of 256 tokens or more'", "<= 80"),
        ([{"lengths": [0.05]}], "probe.grids: given 'no cell that can be built'", "at least one (single corpus/words/numbers: 4 tokens are too few"),
        ([{"lengths": [1]}], None, ""),
    ],
)  # fmt: skip
def test_a_grid_that_does_not_fit_is_refused_before_anything_is_prepared(tmp_path, monkeypatch, grids, start, words):
    def prepare(data, trained_on):
        raise Prepared

    monkeypatch.setattr(readers, "prepare", prepare)
    lengths = (80,) if grids == [{"lengths": [0.05]}] else (64, 80)
    targets = [target(tmp_path, length, grids) for length in lengths]
    with pytest.raises(LcprobeError if start else Prepared) as caught:
        open_session(targets, targets[0].config, tmp_path / "out")
    if start is not None:
        assert str(caught.value).startswith(start)
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_shorter_than_the_training_length_is_refused(tmp_path):
    learned = {"positional": {"type": "learned", "max_length": 48}, "context_length": 48}
    given = target(tmp_path, 64, [{"lengths": [0.5]}], **learned)
    with pytest.raises(LcprobeError, match=r"^model.context_length: given 'L64 was trained at 64 tokens'; .*<= 48"):
        open_session([given], given.config, tmp_path / "out")
