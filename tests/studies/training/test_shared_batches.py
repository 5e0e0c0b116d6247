"""Runs that differ in their model only are trained on batches that are built once, and are what each would build."""

import numpy as np

from lcprobe.config import load
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import prepare
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.train_run import make_mixture
from tests.tiny import write_config


def test_models_of_a_seed_share_their_batches_and_seeds_and_lengths_do_not(tmp_path, data_settings):
    axes = ["grid.seed=[0, 1]", "grid.train.context_length=[64, 128]"]
    plan = make_plan(load([str(write_config(tmp_path, data_settings))], axes))
    data = prepare(plan.config.data)
    runs = sorted(plan.runs, key=lambda run: (run.config.seed, run.config.train.context_length))
    mixtures = [make_mixture(run, data) for run in runs]
    assert len(runs) == 8
    for number, (run, mixture) in enumerate(zip(runs, mixtures, strict=True)):
        assert [other is mixture for other in mixtures] == [other // 2 == number // 2 for other in range(8)]
        train = run.config.train
        own = Mixture(
            run.config.data,
            data,
            context_length=train.context_length,
            rows=train.rows,
            steps=train.steps,
            parts=1,
            seed=run.config.seed,
        )
        for step in (1, 0, 1):
            assert np.array_equal(mixture.batch(step, 0).tokens, own.batch(step, 0).tokens)
