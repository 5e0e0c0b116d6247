"""Norms of blocks by the name used in `model.norm`: each a class with `Config`, `forward`, `added` and `params`.

Adding a norm takes one file here with a subclass of `contract.Norm`, and one line in NORMS below.
"""

from lcprobe.choices import Registry

NORMS = Registry(
    "lcprobe.models.norms.contract:Norm",
    {
        "rms": "lcprobe.models.norms.rms:RMSNorm",
        "zero_centred_rms": "lcprobe.models.norms.rms:ZeroCentredRMSNorm",
        "layer": "lcprobe.models.norms.layer:LayerNorm",
    },
)
