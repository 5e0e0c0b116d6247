"""Mixers by the name used in configs: each a class with `Config`, `forward(x, where, state)`, `new_state`, `cost`.

A new mixer is a file and a line here; matching, training, probing and the state-contract test pick it up from this dict.
"""

from lcprobe.choices import Registry

MIXERS = Registry(
    "lcprobe.models.mixers.contract:Mixer",
    {
        "attention": "lcprobe.models.mixers.attention:Attention",
        "mamba2": "lcprobe.models.mixers.mamba2:Mamba2",
    },
)
