"""Peers' Triton kernels in Triton's interpreter: without a GPU to ask or to time configurations on."""

from types import SimpleNamespace

import torch


class NoDevice:
    """In place of torch.cuda.device."""

    def __init__(self, device):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def without_a_gpu(monkeypatch):
    """Autotuned kernels take their smallest tiles; questions about the GPU are answered for one of four
    multiprocessors."""
    from triton.runtime.autotuner import Autotuner

    def run(self, *args, **kwargs):
        config = min(self.configs, key=lambda c: sum(v for k, v in c.kwargs.items() if k.startswith("B")))
        self.nargs, self.best_config = dict(zip(self.arg_names, args, strict=False)), config
        if config.pre_hook is not None:
            config.pre_hook({**self.nargs, **kwargs, **config.all_kwargs()})
        return self.fn.run(*args, **{**kwargs, **config.kwargs})

    monkeypatch.setattr(Autotuner, "run", run)
    monkeypatch.setattr(torch.cuda, "device", NoDevice)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d=None: SimpleNamespace(multi_processor_count=4))
