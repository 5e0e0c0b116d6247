"""Where results are tracked: metrics.csv always, W&B and others where they are wanted and can be had. None can stop a
run.

chosen.py             the trackers of a config
trackers.py           several trackers as one
metrics_csv.py        the rows of a run as a file
modes.py              off, offline or online: what is wanted, what the environment allows, whether the server is there
identity.py           ids of W&B runs, which stay when a study is resumed, requeued, probed again or moved
wandb_tracker.py      one W&B run
also                  TensorBoard and trackio
lineage.py            data set, checkpoints, records and report, and what is made from what
alerts.py             what a person should know of at once, once
eval_values.py        what an evaluation says about a model, under names that all models share
kept_evaluations.py   what all evaluations have said about a model so far
sync.py               sends what was tracked offline: every run once
log_file.py           what the log of an offline run has
"""

from lcprobe.studies.tracking.metrics_csv import CsvTracker, final_loss, read_metrics
from lcprobe.studies.tracking.modes import wandb_mode
from lcprobe.studies.tracking.trackers import Trackers
from lcprobe.studies.tracking.wandb_tracker import WandbRun, WandbTracker

__all__ = ["CsvTracker", "Trackers", "WandbRun", "WandbTracker", "final_loss", "read_metrics", "wandb_mode"]
