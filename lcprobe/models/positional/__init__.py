"""Positional encodings by the name used in configs; schemes of drawn positions and softmax temperatures.

Adding an encoding takes one file here, such as positional/myrope.py, with a frozen dataclass `MyRoPEConfig` (a
docstring under each field, which `--help` prints) and a subclass of `contract.PositionalEncoding` that overrides the
hooks it needs, and one line in POSITIONAL below. A temperature or a scheme of drawn positions likewise subclasses its
base (temperature.py, positions.py) and gets a line in TEMPERATURES or POSITIONS. The contract tests
(tests/models/test_contracts.py) run over these registries; tests/toys/encoding.py is a complete example. An encoding
also needs its equation in validation/oracles/encodings.py, against which it is tested.
"""

from lcprobe.choices import Registry

POSITIONAL = Registry(
    "lcprobe.models.positional.contract:PositionalEncoding",
    {
        "none": "lcprobe.models.positional.none:NoPE",
        # the embedding
        "learned": "lcprobe.models.positional.absolute:Learned",
        "sinusoidal": "lcprobe.models.positional.absolute:Sinusoidal",
        # queries and keys
        "rope": "lcprobe.models.positional.rope:RoPE",
        "prope": "lcprobe.models.positional.prope:PRoPE",
        "hope": "lcprobe.models.positional.prope:HoPE",
        "xpos": "lcprobe.models.positional.xpos:XPos",
        "fope": "lcprobe.models.positional.fope:FoPE",
        "pope": "lcprobe.models.positional.pope:PoPE",
        "selective_rope": "lcprobe.models.positional.selective_rope:SelectiveRoPE",
        # scores, by distance
        "alibi": "lcprobe.models.positional.alibi:ALiBi",
        "t5": "lcprobe.models.positional.t5:T5",
        "kerple": "lcprobe.models.positional.kerple:KERPLE",
        "sandwich": "lcprobe.models.positional.sandwich:Sandwich",
        "fire": "lcprobe.models.positional.fire:FIRE",
        # scores, by content
        "fox": "lcprobe.models.positional.fox:FoX",
        "cable": "lcprobe.models.positional.cable:CABLE",
        "cope": "lcprobe.models.positional.cope:CoPE",
        "stick_breaking": "lcprobe.models.positional.stick_breaking:StickBreaking",
        "path": "lcprobe.models.positional.path:PaTH",
        "dape": "lcprobe.models.positional.dape:DAPE",
        # queries and keys, with tensors that are passed from layer to layer
        "tape": "lcprobe.models.positional.tape:TAPE",
    },
)

POSITIONS = Registry(
    "lcprobe.models.positional.positions:DrawnPositions",
    {
        "randomized": "lcprobe.models.positional.positions:Randomized",
        "pose": "lcprobe.models.positional.positions:PoSE",
    },
)
"""Schemes in which training draws positions instead of counting them."""

TEMPERATURES = Registry(
    "lcprobe.models.positional.temperature:Temperature",
    {
        "logn": "lcprobe.models.positional.temperature:LogN",
        "ssmax": "lcprobe.models.positional.temperature:SSMax",
    },
)
"""Softmax temperatures that depend on the number of visible keys."""
