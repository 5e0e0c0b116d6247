"""Mixers by the name used in configs: each a class with `Config`, `forward(x, where, state)`, `new_state`, `cost`.

Adding a mixer takes one file here, such as mixers/mymixer.py, with three classes (a subclass of
`contract.MixerConfig` with a docstring under each field, which `--help` prints; a subclass of `State`; a subclass of
`contract.Mixer`), and one line in MIXERS below. Matching, training, probing and the contract tests
(tests/models/test_contracts.py) read this registry. A mixer also needs its recurrence in
validation/oracles/recurrences.py, or an outside model in validation/oracles, against which it is tested.
tests/toys/mixer.py is a complete example.
"""

from lcprobe.choices import Registry

MIXERS = Registry(
    "lcprobe.models.mixers.contract:Mixer",
    {
        "attention": "lcprobe.models.mixers.attention:Attention",
        "mamba1": "lcprobe.models.mixers.mamba1:Mamba1",
        "mamba2": "lcprobe.models.mixers.mamba2:Mamba2",
        "mamba3": "lcprobe.models.mixers.mamba3:Mamba3",
        "delta_product": "lcprobe.models.mixers.delta_product:DeltaProduct",
        "gated_deltanet": "lcprobe.models.mixers.gated_deltanet:GatedDeltaNet",
        "gdn2": "lcprobe.models.mixers.gdn2:GDN2",
        "gla": "lcprobe.models.mixers.gla:GLA",
        "kda": "lcprobe.models.mixers.kda:KDA",
        "lightning": "lcprobe.models.mixers.lightning:Lightning",
        "mlstm": "lcprobe.models.mixers.mlstm:MLSTM",
        "rg_lru": "lcprobe.models.mixers.rg_lru:RGLRU",
        "rwkv6": "lcprobe.models.mixers.rwkv6:RWKV6",
        "rwkv7": "lcprobe.models.mixers.rwkv7:RWKV7",
    },
    families={"fla": "lcprobe.models.mixers.fla:wrapped"},
)
