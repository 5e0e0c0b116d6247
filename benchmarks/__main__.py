"""`python -m benchmarks [NAME ...] [key=value ...]`: speed and memory beside peers, as a table and
benchmarks/results/*.json.

Speeds are compared within one run: machines differ, and the same machine differs from hour to hour.
"""

import sys
from pathlib import Path

from benchmarks import (
    data_path,
    decoding,
    episodes,
    generation,
    host,
    kernels,
    memory,
    mixers,
    prefill,
    preparation,
    rwkv,
    sharing,
    throughput,
)
from benchmarks.command import Measurement, run_measurements
from lcprobe.errors import run_command

BENCHMARKS = {
    "kernels": Measurement(kernels.TITLE, kernels.OPTIONS, kernels.measure),
    "throughput": Measurement(throughput.TITLE, throughput.OPTIONS, throughput.measure),
    "mixers": Measurement(mixers.TITLE, mixers.OPTIONS, mixers.measure, group=("mixer",)),
    "rwkv": Measurement(rwkv.TITLE, rwkv.OPTIONS, rwkv.measure),
    "decoding": Measurement(decoding.TITLE, decoding.OPTIONS, decoding.measure),
    "prefill": Measurement(prefill.TITLE, prefill.OPTIONS, prefill.measure),
    "memory": Measurement(memory.TITLE, memory.OPTIONS, memory.measure, memory.notes),
    "episodes": Measurement(episodes.TITLE, episodes.OPTIONS, episodes.measure),
    "generation": Measurement(generation.TITLE, generation.OPTIONS, generation.measure),
    "preparation": Measurement(preparation.TITLE, preparation.OPTIONS, preparation.measure, preparation.notes),
    "data_path": Measurement(data_path.TITLE, data_path.OPTIONS, data_path.measure, data_path.notes),
    "host": Measurement(host.TITLE, host.OPTIONS, host.measure, host.notes, host.GROUP),
    "sharing": Measurement(sharing.TITLE, sharing.OPTIONS, sharing.measure, sharing.notes),
}
DEFAULT_BENCHMARKS = ("kernels", "throughput", "episodes")
"""The benchmarks that run when none is named."""

if __name__ == "__main__":
    raise SystemExit(
        run_command(lambda: run_measurements(BENCHMARKS, DEFAULT_BENCHMARKS, Path(__file__).parent, sys.argv[1:]))
    )
