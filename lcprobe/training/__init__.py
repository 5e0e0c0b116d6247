"""Training: one run from its config to its checkpoints, through Lightning.

config          what can be set, without torch
fit             the Trainer, from wherever the run was left
module          the LightningModule: one step, its logs, its numerics
optim           AdamW and the learning-rate schedule
initial_state   what recurrent layers hold before a sequence
checkpoint      digested folders, written atomically; resume
ranks           several processes as one
progress        one line while training
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
"""What a recurrent model's state holds before a training sequence, by the name used in configs."""
