"""lcprobe: train matched sequence models at a fixed context length, then probe what they retrieve from context."""

__version__ = "0.1.0"
