"""What fails in the middle of training: a probe costs its numbers alone, and a run that ends never says that it goes
on."""

import pytest

from lcprobe.cli.commands import train_main
from lcprobe.files import digest_file, read_json
from lcprobe.studies.training import probe_callback, train_run
from tests.tiny import write_config

TRAIN = {"context_length": 64, "tokens": 64 * 4 * 4, "batch_tokens": 256, "lr": 0.01, "log_every": 1, "threads": 1}
ONE = {"arch": {"mamba2": {"model": {"layout": "mamba2 x 2"}}}}


def trained(folder, data, probe_every):
    folder.mkdir()
    code = train_main([str(write_config(folder, data, train={**TRAIN, "probe_every": probe_every}, grid=ONE))])
    return code, folder / "runs" / "tiny" / "mamba2"


def weights(run):
    return digest_file(max(run.glob("checkpoints/*/model.safetensors")))


def test_a_probe_that_fails_neither_ends_the_run_nor_changes_it(tmp_path, data_settings, monkeypatch, capsys):
    monkeypatch.setattr(probe_callback, "score_unit", lambda *_: 1 / 0)
    code, run = trained(tmp_path / "failing", data_settings, probe_every=512)
    status = read_json(run / "status.json")
    assert (code, status["status"], status["step"]) == (0, "done", 4)
    assert status["probes_failed"] == [f"step {step}: ZeroDivisionError: division by zero" for step in (2, 4)]
    assert (
        "the probe at step 2 failed, training goes on: ZeroDivisionError: division by zero" in capsys.readouterr().err
    )
    assert "probe/" not in (run / "metrics.csv").read_text()
    other = trained(tmp_path / "unprobed", data_settings, probe_every=0)[1]
    assert "probes_failed" not in read_json(other / "status.json")
    assert weights(run) == weights(other)


@pytest.mark.parametrize("where", ["fit", "build_to_train", "ProbeWhileTraining"])
def test_whatever_ends_a_run_its_status_says_so(where, tmp_path, data_settings, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(train_run, where, fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trained(tmp_path / "lost", data_settings, probe_every=512)
    status = read_json(tmp_path / "lost" / "runs" / "tiny" / "mamba2" / "status.json")
    assert (status["status"], status["why"]) == ("stopped", "CUDA error: an illegal memory access was encountered")
