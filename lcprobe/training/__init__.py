"""Training: one run from its config to its checkpoints, through Lightning.

config          settings, without torch
fit             the Trainer, from the start or the newest checkpoint
module          the LightningModule: one step, its logs, its numerics
optim           AdamW and the learning-rate schedule
initial_state   states of recurrent layers before a sequence
checkpoint      folders with digests, written atomically; resuming
processes       how the processes of a run were started: alone, by torchrun, by SLURM
ranks           how they divide the work, and share values
strategies      how they hold the model
progress        lines on stderr while training
"""

from lcprobe.choices import Registry

INITIAL_STATES = Registry(
    "lcprobe.training.initial_state:InitialState",
    {
        "passed": "lcprobe.training.initial_state:Passed",
        "preceding": "lcprobe.training.initial_state:Preceding",
        "noise": "lcprobe.training.initial_state:Noise",
        "fitted": "lcprobe.training.initial_state:Fitted",
    },
)
"""The state of recurrent layers before a training sequence, by the name used in configs."""
