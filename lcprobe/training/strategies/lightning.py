"""Lightning's strategy for a division of the model. The model is divided, and its values set, before Lightning sees
it."""

from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from lcprobe.training.strategies.division import Division


def lightning_strategy(division: Division) -> Strategy | str:
    """What the Trainer gets."""
    if division.kind == "ddp":
        return DDPStrategy(gradient_as_bucket_view=True)  # or each device has all gradients twice
    if division.is_divided:
        now = division.layout
        return ModelParallelStrategy(data_parallel_size=now.replicas, tensor_parallel_size=now.tensor)
    return "auto"
