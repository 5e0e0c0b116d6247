"""Checkpoints of other projects in and out: how their settings and tensors map to ours, one format a file.

    files.py     tensors in safetensors and in PyTorch's files, read piece by piece; no pickle with code
    load.py      a folder -> a LanguageModel          export.py   a LanguageModel -> a folder

Adding a format takes one file here with a subclass of `contract.Format`, and one line in FORMATS below. The first
format that recognises a folder reads it.
"""

from lcprobe.choices import Registry

FORMATS = Registry(
    "lcprobe.models.checkpoints.contract:Format",
    {
        "mamba_ssm": "lcprobe.models.checkpoints.mamba_ssm:MambaSSM",
        "hf_llama": "lcprobe.models.checkpoints.hf_llama:HFLlama",
        "hf_mamba2": "lcprobe.models.checkpoints.hf_mamba2:HFMamba2",
    },
)
"""Formats by name, in the order in which they are asked whether they recognise a folder."""
