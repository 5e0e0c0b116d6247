"""Where results are tracked: metrics.csv always, and W&B where it is wanted and can be had. Neither can stop a run.

metrics_csv.py     the rows of a run as a file
wandb_mode.py      off, offline or online: what is wanted, what the environment allows, whether the server is there
identity.py        ids of W&B runs, which stay when a study is resumed, requeued, probed again or moved
wandb_tracker.py   one W&B run
eval_values.py     what an evaluation says about a model, under names that all models share
sync.py            sends what was tracked offline: every run once
"""

from lcprobe.studies.tracking.metrics_csv import CsvTracker, final_loss, read_metrics
from lcprobe.studies.tracking.modes import wandb_mode
from lcprobe.studies.tracking.trackers import Trackers
from lcprobe.studies.tracking.wandb_tracker import WandbRun, WandbTracker

__all__ = ["CsvTracker", "Trackers", "WandbRun", "WandbTracker", "final_loss", "read_metrics", "wandb_mode"]
