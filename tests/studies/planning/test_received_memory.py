"""What `--plan` counts of other devices' keys, values and states, with train.context_parallel, against what is sent."""

import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.schema import build
from lcprobe.studies.planning.memory.estimate import received_of
from lcprobe.training.config import TrainConfig
from validation.context_parallel.processes import in_ranks

SEQLEN = 256
SETTINGS = {
    "layout": "attention, attention+mlp, mamba2, windowed",
    "d_model": 32,
    "d_ff": 48,
    "vocab_size": 64,
    "mixers": {
        "attention": {"head_dim": 16, "n_kv_heads": 1},
        "windowed": {"type": "attention", "head_dim": 16, "window": 33},
        "mamba2": {"head_dim": 16, "d_state": 16, "expand": 1},
    },
}


@torch.no_grad()
def sent(ranks: ContextRanks) -> int:
    """Bytes that the first of two ranks sends the other in a forward pass over one row."""
    model = LanguageModel(build(ModelConfig, SETTINGS, "model")).initialise(0)
    model.hidden(torch.zeros(1, SEQLEN, dtype=torch.int64), ranks=ranks)
    return ranks.sent.total()


def test_what_the_last_device_is_sent_is_counted():
    model = build(ModelConfig, SETTINGS, "model")
    train = TrainConfig(context_length=SEQLEN, batch_tokens=SEQLEN, tokens=SEQLEN, devices=2, context_parallel=2)
    total, largest = received_of(model, train, torch.float32)
    assert total == pytest.approx(in_ranks(2, sent), rel=0.01)
    assert largest == SEQLEN / 2 * 2 * 16 * 4, "keys and values of one layer without a window"
    assert received_of(model, TrainConfig(), torch.float32) == (0.0, 0.0)
