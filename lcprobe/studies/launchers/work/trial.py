"""One trial of a learning-rate sweep: `python -m lcprobe.studies.launchers.work.trial STUDY NAME`, in each process of
a trial on several devices, as torchrun or srun starts them. A run has a config with which train.py trains it; a trial
is known by its study."""

import sys
from pathlib import Path

from lcprobe.errors import run_command, unknown_name
from lcprobe.studies.launchers.work.orders import TrainOrder, train_order
from lcprobe.studies.launchers.work.training import plans_of, trial_units
from lcprobe.studies.runtime import keep_memory, set_up_logging, use_kernels
from lcprobe.studies.training.train_run import train_run


def train_trial(study: Path, name: str) -> None:
    """Train what is left of a trial. Raises ConfigError for a trial that the study does not have, and as
    `train_run`."""
    set_up_logging()
    keep_memory()
    plans = plans_of(study, train_order(study) or TrainOrder())
    units = {unit.name: unit for plan in plans for unit in trial_units(plan)}
    if name not in units:
        raise unknown_name("trial", name, units)
    unit = units[name]
    use_kernels(unit.run_.config.kernels)
    train_run(unit.run_, unit.folder, unit.job_type)


if __name__ == "__main__":
    sys.exit(run_command(lambda: train_trial(Path(sys.argv[1]), sys.argv[2])))
