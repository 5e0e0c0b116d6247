"""Sweeps in W&B's format over any settings, one trial a run. (The learning rates of a study are swept by
`study.lr_sweep`, for each of its architectures: `training.lr_sweep`.)

sweep_file.py   reads the file and draws its trials
trial_names.py  what trials are called
run_sweep.py    trains them here, without a server
"""
