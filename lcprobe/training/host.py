"""What the host of a GPU takes for a training step: the interpreter, autograd and PyTorch's dispatcher, and launches.

Launches are asynchronous and nothing in a step waits for the device, so that a step takes the longer of both: the
device's time, or the host's. `python -m benchmarks host` measures Python's part, which benchmarks/notes/host.md
describes; a test holds the figures here against its results. Not counted: collectives of several processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of
from lcprobe.training.config import TrainConfig


@dataclass(frozen=True)
class HostCost:
    """Of a layer, forward and backward. milliseconds: of Python, autograd and dispatch; launches: of Triton
    kernels."""

    milliseconds: float
    launches: int


UNCOMPILED = {"mamba2": HostCost(1.254, 13), "attention": HostCost(1.397, 6), "mlp": HostCost(0.474, 2)}
COMPILED = {"mamba2": HostCost(1.292, 13), "attention": HostCost(1.334, 6), "mlp": HostCost(0.362, 2)}
"""By kind of layer, as measured. Other mixers are taken for Mamba2."""
LAUNCH = 20e-6
"""Seconds of a Triton kernel's launch, its arguments bound and looked up."""
UPDATE = 0.1e-3
"""Seconds for a layer to clip its gradients and take the optimiser's step, once a step."""


def host_seconds(model: ModelConfig, train: TrainConfig) -> float:
    """What the host of each device takes for a step: of its micro-batches, and of the optimiser. model: with its
    sizes."""
    costs = COMPILED if train.compile else UNCOMPILED
    layers = parts_of(model).layers
    mlps = sum(layer.mlp is not None for layer in layers)
    passes = sum(_seconds(costs, layer.kind) for layer in layers) + mlps * _seconds(costs, "mlp")
    again = 4 / 3 if train.recompute else 1  # the forward pass of each block twice
    return train.accumulate * passes * again + UPDATE * (len(layers) + mlps)


def _seconds(costs: Mapping[str, HostCost], kind: str) -> float:
    cost = costs.get(kind, costs["mamba2"])
    return cost.milliseconds / 1000 + cost.launches * LAUNCH
