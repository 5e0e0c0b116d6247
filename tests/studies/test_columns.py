"""Columns of a report: methods meet a model as it is at its checkpoint, and what a model cannot read is left out of its column."""

from dataclasses import asdict

import pytest

from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.files import write_json
from lcprobe.studies.columns import columns_of
from lcprobe.studies.targets import Target
from lcprobe.training.checkpoint import Progress


def target(folder, before, after, step):
    """A checkpoint of which only the step is there."""
    write_json(folder / "state.json", asdict(Progress(step=step)))
    config = parse({
        "model": {"d_model": 16, "d_ff": 16, "vocab_size": 64, "mixers": {"attention": {"head_dim": 8}}, "positional": before},
        "train": {"tokens": 8192, "batch_tokens": 512, "context_length": 64, "switch": {"at": 0.5, "positional": after}},
    })  # fmt: skip
    return Target("run", folder, config, None)


@pytest.mark.parametrize(("before", "after"), [("rope", "none"), ("none", "rope")])
@pytest.mark.parametrize("step", [7, 8, 16])
def test_methods_meet_the_encodings_of_the_checkpoints_step(tmp_path, before, after, step):
    pe, given = parse({"pe": {"extend": "yarn", "factor": 2}}).pe, [target(tmp_path, before, after, step)]
    if (before if step < 8 else after) == "rope":
        assert [column.name for column in columns_of(given, pe)[0]] == ["run", "run+yarn"]
    else:
        with pytest.raises(ConfigError, match="it has no rotary layer"):
            columns_of(given, pe)
