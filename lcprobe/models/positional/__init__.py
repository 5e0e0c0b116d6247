"""Positional encodings by the name used in configs. A new one is a file and a line here."""

POSITIONAL = {
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
}
