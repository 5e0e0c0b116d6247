"""Speed and memory beside peers, one command each: `python -m benchmarks kernels`, `python -m benchmarks
throughput`."""
