"""Optimiser and schedule: AdamW with decoupled decay (Loshchilov & Hutter 2019, arXiv 1711.05101), and a learning
rate that is a pure function of the step."""

import math

import torch
from torch import nn

from lcprobe.models.parameters import no_decay_names
from lcprobe.training.config import TrainConfig


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW with two parameter groups: matrices have weight decay; norms, biases, convolutions, A_log, dt_bias and D
    do not."""
    no_decay = no_decay_names(model)
    decayed = [p for name, p in model.named_parameters() if name not in no_decay]
    others = [p for name, p in model.named_parameters() if name in no_decay]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def lr_at(config: TrainConfig, step: int) -> float:
    """Learning rate of optimiser step `step`, 0 .. steps - 1.

    wsd: warm-up, stable, linear decay (Hu et al. 2024, MiniCPM, arXiv 2404.06395). cosine: Loshchilov & Hutter 2017.
    """
    steps = config.steps
    warm = max(1, round(config.warmup * steps))
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        done = (step - warm) / max(1, steps - warm)
        share = 0.5 * (1 + math.cos(math.pi * done))
    else:
        share = min(1.0, (steps - step) / max(1, round(config.decay * steps)))
    return config.lr * (config.final_lr + (1 - config.final_lr) * share)
