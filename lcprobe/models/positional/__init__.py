"""Positional encodings by the name used in configs. A new one is a file and a line here."""

POSITIONAL = {
    "none": "lcprobe.models.positional.none:NoPE",
    "rope": "lcprobe.models.positional.rope:RoPE",
}
