"""Values that are made on the CPU and needed on a GPU."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device. The CPU goes on at once: a GPU fetches them itself, from memory that stays in place."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
