"""Gradients, losses and weights that are not finite, or stand out."""

import torch

from lcprobe.training.module import Training
from validation.faults.harness import STEPS, Fault, Place, at_step, kill_self

REWIND = ("train.guards.non_finite=rewind", "train.guards.leave_out=1")
LONGER = ("train.tokens=12288", "train.checkpoint_every=2048")
"""48 steps, for faults that need losses to compare with; checkpoints at every eighth."""


def _nan_gradient(module: Training) -> None:
    for parameter in module.model.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(float("nan"))


@torch.no_grad()
def _nan_weight(module: Training) -> None:
    next(module.model.parameters()).view(-1)[0] = float("nan")


@torch.no_grad()
def _noise(module: Training) -> None:
    for parameter in module.model.parameters():
        parameter.mul_(torch.linspace(-4, 4, parameter.numel()).reshape(parameter.shape))


def _gradient_at_6(place: Place) -> None:
    at_step(6, _nan_gradient)


def _gradient_at_6_and_kill(place: Place) -> None:
    at_step(6, _nan_gradient)
    at_step(9, kill_self)


def _gradients_from_2(place: Place) -> None:
    for step in range(2, STEPS + 4):
        at_step(step, _nan_gradient)


def _infinite_loss(place: Place) -> None:
    plain = Training.training_step

    def step(self: Training, batch: dict, index: int) -> torch.Tensor:
        loss = plain(self, batch, index)  # type: ignore[arg-type]
        return loss * float("inf") if batch["step"] == 6 else loss

    Training.training_step = step  # type: ignore[method-assign, assignment]


def _weight_before_saving(place: Place) -> None:
    plain, left = Training.check_weights, [True]

    def check(self: Training) -> None:
        if self.progress.step == 8 and left.pop() if left else False:
            _nan_weight(self)
        plain(self)

    Training.check_weights = check  # type: ignore[method-assign]


def _weights_at_40(place: Place) -> None:
    at_step(40, _noise)


FAULTS = (
    Fault(
        "gradient not finite",
        "NaN in every gradient of step 6",
        0,
        "step 6: the gradient's norm is not finite; the step is skipped",
        inject=_gradient_at_6,
        equal=False,
    ),
    Fault(
        "gradient not finite, stop",
        "the same, train.guards.non_finite=stop",
        4,
        "allowed: finite, with train.guards.non_finite=stop",
        inject=_gradient_at_6,
        arguments=["train.guards.non_finite=stop"],
    ),
    Fault(
        "gradient not finite, rewind",
        "the same, train.guards.non_finite=rewind, leave_out=1",
        0,
        "back to step 4, and steps 5 to 7 are left out",
        inject=_gradient_at_6,
        arguments=["train.guards.non_finite=rewind", "train.guards.leave_out=1"],
        equal=False,
    ),
    Fault(
        "killed after a rewind",
        "the same, and SIGKILL in step 9",
        -9,
        "back to step 4, and steps 5 to 7 are left out",
        inject=_gradient_at_6_and_kill,
        arguments=REWIND,
        after=REWIND,
        like=_gradient_at_6,
    ),
    Fault(
        "gradient not finite in two processes, rewind",
        "the same in both of two processes",
        0,
        "back to step 4, and steps 5 to 7 are left out",
        inject=_gradient_at_6,
        arguments=["train.guards.non_finite=rewind", "train.guards.leave_out=1", "train.devices=2"],
        ranks=2,
        after=["train.accumulate=2"],
        equal=False,
    ),
    Fault(
        "gradients stay not finite",
        "NaN in every gradient from step 2 on",
        0,
        "the step is skipped",
        inject=_gradients_from_2,
        equal=False,
    ),
    Fault(
        "more than 10 steps not finite",
        "NaN in the gradients of 11 steps",
        4,
        "of the last 1000 steps were not finite",
        inject=_gradients_from_2,
        arguments=["train.tokens=4096", "train.guards.non_finite=skip"],
        after=["train.tokens=4096"],
        equal=False,
    ),
    Fault(
        "loss infinite",
        "the loss of step 6 is infinite",
        0,
        "step 6: the gradient's norm is not finite; the step is skipped",
        inject=_infinite_loss,
        equal=False,
    ),
    Fault(
        "weight not finite",
        "NaN in a weight right before the checkpoint of step 8",
        4,
        "weights are not finite and were not saved",
        inject=_weight_before_saving,
    ),
    Fault(
        "weight not finite, rewind",
        "the same, train.guards.non_finite=rewind, leave_out=0",
        0,
        "weights are not finite; back to step 4, and steps 7 to 7 are left out",
        inject=_weight_before_saving,
        arguments=["train.guards.non_finite=rewind", "train.guards.leave_out=0"],
        equal=False,
    ),
    Fault(
        "loss spike",
        "weights are disturbed in step 40 of 48",
        0,
        "standard deviations above the median of the steps before",
        inject=_weights_at_40,
        arguments=LONGER,
        after=LONGER,
        equal=False,
    ),
    Fault(
        "loss spike, rewind",
        "the same, train.guards.spikes=rewind, leave_out=2",
        0,
        "back to step 32, and steps 39 to 43 are left out",
        inject=_weights_at_40,
        arguments=[*LONGER, "train.guards.spikes=rewind", "train.guards.leave_out=2"],
        after=LONGER,
        equal=False,
    ),
    Fault(
        "loss spike, no rewind left",
        "the same, rewinds=0",
        4,
        "after 0 rewinds; allowed: 0",
        inject=_weights_at_40,
        arguments=[*LONGER, "train.guards.spikes=rewind", "train.guards.rewinds=0"],
        after=LONGER,
        equal=False,
    ),
)
"""Where the command that follows ends with other weights, steps were left out, or the run is a longer one."""
