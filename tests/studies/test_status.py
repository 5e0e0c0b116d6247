"""Saved configs of earlier versions are read in today's settings."""

import yaml

from lcprobe.config import parse, to_yaml
from lcprobe.studies.status import read_run_config
from tests.tiny import TINY


def test_fixed_depths_of_an_earlier_version_are_as_many_strata(tmp_path):
    """Runs that were trained before suite 5 can be probed: their config.yaml is digested and cannot be edited."""
    probe = TINY["probe"]
    old = {
        **TINY,
        "probe": {
            **probe,
            "grids": [{"lengths": [1], "depths": [0, 0.5, 1], "n": 8}, {"lengths": [2], "n": 8}],
            "while_training": {"tasks": ["single"], "lengths": [1], "depths": [0.5], "n": 4},
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    config = parse(read_run_config(tmp_path))
    assert [grid.depths for grid in config.probe.grids] == [3, 5]
    assert config.probe.while_training is not None
    assert config.probe.while_training.depths == 1


def test_settings_of_this_version_stay_as_they_are(tmp_path):
    written = to_yaml(parse(TINY))
    (tmp_path / "config.yaml").write_text(written)
    assert read_run_config(tmp_path) == yaml.safe_load(written)


def test_a_run_of_a_version_without_the_setting_was_trained_with_near_duplicates(tmp_path):
    saved = yaml.safe_load(to_yaml(parse(TINY)))
    assert saved["data"].pop("near_duplicates") == 0.5
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert parse(read_run_config(tmp_path)).data.near_duplicates is None
