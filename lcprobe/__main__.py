"""`python -m lcprobe`: the same as the console script `lcprobe`."""

from lcprobe.cli.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
