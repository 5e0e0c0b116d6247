"""Memory of what nobody needs any more, given back after something did not fit."""

import gc

import torch


def free_memory() -> None:
    """Collect what only cycles hold, and what torch keeps of the device's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
