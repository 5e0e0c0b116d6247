"""Faults, each put into a real tiny run: what the run says, with which exit code it ends, and what is lost.

harness.py        runs in forked processes, their outcomes, and what the same command does afterwards
numerics.py       gradients, losses, weights
processes.py      signals, kills, hangs, memory, several processes
files.py          checkpoints, disks, data, locks
records.py        evaluations that are killed, and records that are damaged
dividing.py       evaluations by two processes that share contexts
surroundings.py   settings, clocks, W&B
workers.py        workers of a launcher, and the launcher
launched.py       rows of the table for these
table.py          the table
"""
