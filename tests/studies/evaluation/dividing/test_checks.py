"""Contexts that several processes cannot share are refused in one line, before anything is prepared."""

import pytest

from lcprobe.config import parse
from lcprobe.errors import ConfigError
from lcprobe.studies.evaluation.dividing.checks import check_shared
from lcprobe.studies.evaluation.dividing.processes import sharing
from lcprobe.studies.evaluation.variants import Variant
from tests.studies.evaluation.test_session import target

GRIDS = [{"lengths": [1]}]


def variant(folder, **model) -> Variant:
    return Variant(target(folder, 64, GRIDS, **model), None)


def test_scores_that_depend_on_the_keys_between_are_refused(tmp_path):
    probe = parse({"probe": {"context_parallel": 4}}).probe
    check_shared([variant(tmp_path, positional="rope")], probe)
    (tmp_path / "L64").rename(tmp_path / "other")
    with pytest.raises(
        ConfigError, match=r"^probe.context_parallel: given 4; allowed: 1 for L64, \(model.positional: given 'CoPE'"
    ):
        check_shared([variant(tmp_path, positional="cope")], probe)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"context_parallel": 0}, "probe.context_parallel: given 0; allowed: 1 .. 1024"),
        ({"context_parallel": 2, "split": True}, "probe.split: given True; allowed: false with context_parallel"),
    ],
)
def test_settings_that_cannot_be(probe, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        parse({"probe": probe})


def test_another_number_of_processes_than_torchrun_started(monkeypatch, tmp_path):
    world = {"WORLD_SIZE": 3, "RANK": 1, "LOCAL_RANK": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}
    for name, value in world.items():
        monkeypatch.setenv(name, str(value))
    expected = r"^probe.context_parallel: given 2; allowed: 3, the processes that torchrun has started, or 2 of them$"
    config = parse({"probe": {"context_parallel": 2}})
    with pytest.raises(ConfigError, match=expected), sharing(config.probe, config.kernels, tmp_path):
        pass
