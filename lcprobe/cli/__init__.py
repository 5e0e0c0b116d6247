"""The command line: `lcprobe train | evaluate | data | kernels | config` and its help."""
