"""Probe trained models and write the report: `python evaluate.py runs/quickstart`, `python evaluate.py --help`."""

from lcprobe.cli.commands import evaluate_main

if __name__ == "__main__":
    raise SystemExit(evaluate_main())
