"""Trackers beside W&B (`track.also`), each of a library that is an extra and is imported in its functions only.

guarded.py       what a library raises ends tracking, not the run
tensorboard.py   event files
trackio.py       a database on this machine
"""
