"""What keeps a run from losing work: when something is wrong, it says so in one line and ends or goes on as asked.

spikes.py     losses that stand out
judge.py      what follows from steps that are not finite, and from spikes
rewinding.py  going back to a checkpoint, with steps left out from then on
finite.py     no checkpoint of weights that are not finite
heart.py      what the training process is doing, and since when
watchdog.py   ends a process in which nothing moves
signals.py    signals as a thread sees them, while the main thread waits
peers.py      which process of a run is missing
disk.py       room for checkpoints
deadline.py   a limit on the time of a process
"""
