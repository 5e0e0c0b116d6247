"""MLPs of blocks by the name used in `model.mlp`: each a class with `Config`, `forward(x, where, state)`,
`new_state`, `cost`.

Adding an MLP takes one file here with a subclass of `contract.MLPConfig` and one of `contract.MLP`, and one line in
MLPS below. An MLP with a token shift keeps the last token in a state, exactly like a mixer. The contract tests
(tests/models/test_contracts.py) read this registry.
"""

from lcprobe.choices import Registry

MLPS = Registry(
    "lcprobe.models.mlps.contract:MLP",
    {
        "swiglu": "lcprobe.models.mlps.gated:SwiGLU",
        "geglu": "lcprobe.models.mlps.gated:GeGLU",
        "relu2": "lcprobe.models.mlps.relu2:ReLU2",
        "rwkv6": "lcprobe.models.mlps.rwkv:RWKV6ChannelMixing",
        "rwkv7": "lcprobe.models.mlps.rwkv:RWKV7ChannelMixing",
        "none": "lcprobe.models.mlps.none:NoMLP",
    },
)
