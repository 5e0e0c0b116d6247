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
        "hf_mamba": "lcprobe.models.checkpoints.hf_mamba:HFMamba",
        "hf_recurrent_gemma": "lcprobe.models.checkpoints.hf_recurrent_gemma:HFRecurrentGemma",
        "hf_qwen3_next": "lcprobe.models.checkpoints.hf_qwen3_next:HFQwen3Next",
        "hf_qwen3_5_text": "lcprobe.models.checkpoints.hf_qwen3_5:HFQwen35Text",
        "hf_qwen3_5": "lcprobe.models.checkpoints.hf_qwen3_5:HFQwen35",
        "hf_bamba": "lcprobe.models.checkpoints.hf_bamba:HFBamba",
        "hf_nemotron_h": "lcprobe.models.checkpoints.hf_nemotron_h:HFNemotronH",
        "hf_xlstm": "lcprobe.models.checkpoints.hf_xlstm:HFxLSTM",
        "fla": "lcprobe.models.checkpoints.fla:FLA",
        "fla_rwkv": "lcprobe.models.checkpoints.fla_rwkv:FLARWKV",
        "rwkv_hub": "lcprobe.models.checkpoints.rwkv_hub:RWKVHub",
        "rwkv": "lcprobe.models.checkpoints.rwkv:RWKV",
    },
)
"""Formats by name, in the order in which they are asked whether they recognise a folder."""
