"""Scores of given tokens under a model, with logits for a bounded number of positions at a time."""

import torch
from torch import Tensor

from lcprobe.probing.engines.contract import ProbedModel

MAX_LOGIT_ROWS = 4096
"""Rows of logits in memory at once: 4096 x 50K float32 are 0.8 GB."""


def score_tokens(model: ProbedModel, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """hidden: (batch, seqlen, d_model), targets: (batch, seqlen) -> log-likelihood of each target, and whether it is
    the argmax; where logits are no numbers, the likelihood is NaN and nothing is the argmax.
    """
    flat, ids = hidden.flatten(0, 1), targets.flatten()
    likelihood = torch.empty(len(flat), dtype=torch.float32, device=flat.device)
    right = torch.empty(len(flat), dtype=torch.bool, device=flat.device)
    for lo in range(0, len(flat), MAX_LOGIT_ROWS):
        part = slice(lo, lo + MAX_LOGIT_ROWS)
        logits = model.logits(flat[part])
        picked = logits.gather(-1, ids[part, None])[:, 0]
        likelihood[part] = picked - logits.logsumexp(-1)
        right[part] = (logits.argmax(-1) == ids[part]) & ~likelihood[part].isnan()
    return likelihood.view(targets.shape), right.view(targets.shape)
