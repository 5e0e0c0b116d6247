"""Alerts: each once, whichever process comes first."""

from concurrent.futures import ThreadPoolExecutor

from lcprobe.config import TrackConfig
from lcprobe.studies.tracking import alerts as module
from lcprobe.studies.tracking.alerts import ALERTS, alert_of_given_up, alert_once, study_alert
from lcprobe.tracking import NoTracker


class Told(NoTracker):
    def __init__(self):
        self.alerts = []

    def alert(self, title, text):
        self.alerts.append((title, text))


def test_processes_that_find_the_same_alert_once(tmp_path):
    tracker = Told()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: alert_once(tracker, tmp_path, "stopped", f"step {i % 2}"), range(16)))
    assert sorted(tracker.alerts) == [("stopped", "step 0"), ("stopped", "step 1")]
    assert len(list((tmp_path / ALERTS).iterdir())) == 2


def test_alerts_of_a_study_are_sent_online_once_and_kept_offline(tmp_path, monkeypatch):
    opened = []

    class Opened(Told):
        def __init__(self, config, run, folder, goes_on):
            super().__init__()
            opened.append((run.job_type, self))

    monkeypatch.setattr(module, "WandbTracker", Opened)
    for mode, study in (("online", "here"), ("offline", "there")):
        monkeypatch.setattr(module, "wandb_mode", lambda config, study, mode=mode: mode)
        for _ in range(2):
            study_alert(TrackConfig(), tmp_path / study, "trained", "3 runs")
            study_alert(TrackConfig(alerts=False), tmp_path / study, "nobody", "is told")
    assert [(job, one.alerts) for job, one in opened] == [("alert", [("trained", "3 runs")])]
    assert len(list((tmp_path / "there" / ALERTS).iterdir())) == 1


def test_what_is_given_up_is_told_by_the_settings_of_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "wandb_mode", lambda config, study: "off")
    alert_of_given_up(tmp_path, {"mamba2": "out of memory"})
    assert not (tmp_path / ALERTS).exists(), "no study, no settings"
    (tmp_path / "study.yaml").write_text("track: {alerts: true}")
    for _ in range(2):
        alert_of_given_up(tmp_path, {"mamba2": "out of memory", "hybrid": "killed"})
    assert len(list((tmp_path / ALERTS).iterdir())) == 2
