"""Side-by-side measurements, one command each: `python -m benchmarks throughput`, `python -m benchmarks episodes`."""
