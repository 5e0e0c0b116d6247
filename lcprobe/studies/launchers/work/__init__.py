"""What a worker (`lcprobe work FOLDER`) does: it takes what is free until nothing is left.

orders.py     what is to be done in a study's folder, as the launcher wrote it
units.py      the loop over units: claims, retries, what a dead process left
failures.py   failures.jsonl, and when a unit is given up
reports.py    what each worker is at
training.py   units of training: trials of a sweep and runs
trial.py      the command of each process of a trial on several devices
probing.py    the units of a probe
worker.py     the command
requeue.py    whether a job of SLURM that stopped goes into the queue again
"""
