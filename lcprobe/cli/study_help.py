"""What `--help` says of commands about studies as a whole."""

SWEEP = """\
lcprobe sweep: train the trials of a sweep in W&B's format on this machine, without a server.

usage: lcprobe sweep FILE.yaml [key=value ...] [--trials N] [--seed N] [--plan]

  FILE.yaml     as for `wandb sweep`, whose agents train the same trials: method (grid or random), parameters (value,
                values, or min and max), metric, and command with ${{program}}, configs and key=value, and
                ${{args_no_hyphens}}
  key=value     on top of every trial
  --trials      number of trials, 1 or more: of a grid the first ones, at random as many (run_cap in the file)
  --seed        of random trials
  --plan        check and print the trials, and stop

A trial is one run, runs/<study>/<trial>; results in runs/<study>/sweep.json, the best first. The folder is a study:
evaluate.py runs/<study> probes the trials. A finished trial is not trained again. Rates for each architecture of a
study are another thing: study.lr_sweep.

example
  lcprobe sweep configs/sweep/wandb.yml train.tokens=200_000
"""

CONSOLIDATE = """\
lcprobe consolidate: put checkpoints that several processes wrote in parts (train.strategy fsdp2 or tp) into the form
that one process writes, in place.

usage: lcprobe consolidate FOLDER ...

  FOLDER        a run's folder (its newest checkpoint), or a checkpoint's

One tensor is in memory at a time. Training, probing and train.from read both forms: this is for other programs, and
for fewer files. The digest of the weights, which records name, is the same before and after.

example
  lcprobe consolidate runs/matched-2.7b/mamba2
"""

WORK = """\
lcprobe work: train and probe what is free of a study until nothing is left. Several of these, on one machine or on
many that share the folder, do a study together; launcher=local|slurm|ray of train, evaluate and sweep starts them.

usage: lcprobe work STUDY [--units train|probe|NAME ...]

  STUDY         runs/<study>, in which train, sweep or evaluate has begun
  --units       what to take: all training, all probing, or runs, trials and models by name; without, everything

A unit (a run, a trial of a sweep, a group of questions to a model) is claimed, done once, and tried again after a
failure (failures.jsonl in its folder says why); what a killed process had is taken by another and goes on from what
was saved. SIGTERM, SIGUSR1 and SIGUSR2 save and end it. Exit codes as for lcprobe train: 75 go on later, and that of
the first unit that was given up.

example
  lcprobe work runs/matched-130m
"""

STATUS = """\
lcprobe status: what of a study is done, running (by whom, since when, how fast), failed (why, how often) and waiting,
and how long the rest takes. It reads files only.

usage: lcprobe status STUDY [--watch] [--json]

  STUDY         runs/<study>, in which train, sweep or evaluate has begun
  --watch       again every two seconds, until nothing is running and nothing waits
  --json        as JSON, one object a line

example
  lcprobe status runs/matched-130m --watch
"""

SYNC = """\
lcprobe sync: send what was tracked offline in Weights & Biases, every run once.

usage: lcprobe sync FOLDER ...

  FOLDER        a study's folder, or one with several studies

A run that was interrupted, or probed after it was trained, has several W&B folders, and the newest one is whole: it
is sent alone. One that is empty, torn or was cut off is passed over for an older one, and named. What W&B has already
is not sent again; a run that went on since then is, and replaces what W&B had.
Exit code 74: no answer from the server, no credentials, or a run that W&B did not take.

example
  lcprobe sync runs/quickstart
"""
