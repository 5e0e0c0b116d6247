"""Watching a study that several processes work on.

watch.py     starts workers, replaces those that die, stops them
state.py     what is done, running, failed and waiting, from files alone: imports no torch
pace.py      how long the rest takes
screen.py    `lcprobe status`
"""
