"""Which kernels a config's models use: implements `lcprobe kernels CONFIG`."""

from collections.abc import Mapping
from typing import Any

from lcprobe_kernels import ArgumentError
from lcprobe_kernels.report import device_of, dtype_of

from lcprobe.errors import ConfigError
from lcprobe.studies.console import say
from lcprobe.studies.planning.kernel_paths import path_lines
from lcprobe.studies.planning.plan import make_plan


def print_kernels(mapping: Mapping[str, Any], device: str | None, dtype: str | None) -> None:
    """Print a line for each op of the study's models. device: cpu, cuda, sm_90 ..., None: as here. dtype: a short
    name, None: that of train.precision. Asks no network for tokenizers. Raises ConfigError for other names and for a
    study that cannot be planned."""
    try:
        kind, capability = device_of(device)
        of = None if dtype is None else dtype_of(dtype)
    except ArgumentError as error:
        key, rest = str(error).split(": given ", 1)
        value, allowed = rest.split("; allowed: ", 1)
        raise ConfigError(key, value.strip("'"), allowed) from None
    say(*path_lines(make_plan(mapping, fetch=False), kind, capability, of))
