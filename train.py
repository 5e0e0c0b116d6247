"""Train the matched models of a study: `python train.py configs/quickstart.yaml`, `python train.py --help`."""

from lcprobe.cli.commands import train_main

if __name__ == "__main__":
    raise SystemExit(train_main())
