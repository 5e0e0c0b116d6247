"""Which of the folders of W&B are sent: of each run the newest, once, by content and server."""

from pathlib import Path

import pytest

from lcprobe.errors import ConfigError, ServerError
from lcprobe.files import digest_file, write_json
from lcprobe.studies.tracking import sync as module
from lcprobe.studies.tracking.sync import SENT, plan_of, sync, tracked_in

HERE, THERE = "https://here.example.org", "https://there.example.org"


def folder_of(study: Path, run: str, begun: str, id: str, offline: bool = True, content: str = "rows") -> Path:
    folder = study / run / "wandb" / f"{'offline-' if offline else ''}run-20261130_{begun}-{id}"
    folder.mkdir(parents=True)
    (folder / f"run-{id}.wandb").write_text(content)
    return folder


@pytest.fixture
def study(tmp_path):
    """Run a was resumed and probed, b went on online after it began offline, c is as it was trained."""
    for run, begun in (("a", "100000"), ("a", "110000"), ("", "120000")):
        folder_of(tmp_path, run, begun, "5eed-a")
    folder_of(tmp_path, "b", "100000", "5eed-b")
    folder_of(tmp_path, "b", "110000", "5eed-b", offline=False)
    newest = folder_of(tmp_path, "c", "100000", "5eed-c")
    (newest.parent / "latest-run").symlink_to(newest.name)
    return tmp_path


def test_the_newest_folder_of_each_run_is_sent_unless_it_is_there(study):
    found = tracked_in(study)
    assert len(found) == 6, "a link to a folder is none of its own"
    plan = plan_of(found, HERE)
    assert [(one.id, one.begun[-6:]) for one in plan.send] == [("5eed-c", "100000"), ("5eed-a", "120000")]
    assert (plan.sent, plan.superseded) == (1, 3)
    for one in plan.send:
        write_json(one.log.parent / SENT, {HERE: digest_file(one.log)})
    assert plan_of(found, HERE).send == []
    assert len(plan_of(found, THERE).send) == 2
    next(one for one in plan.send if one.id == "5eed-c").log.write_text("more rows")
    assert [one.id for one in plan_of(found, HERE).send] == ["5eed-c"]


def test_nothing_is_sent_without_credentials_answer_or_runs(study, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(module, "server", lambda: HERE)
    monkeypatch.setattr(module, "_send", lambda *given: pytest.fail("sent"))
    with pytest.raises(ConfigError, match="tracked offline"):
        sync([tmp_path_factory.mktemp("empty")])
    for credentials, reason, said in ((False, "", "no credentials"), (True, "no answer", "no answer")):
        monkeypatch.setattr(module, "has_credentials", lambda has=credentials: has)
        monkeypatch.setattr(module, "unreachable", lambda address, why=reason: why)
        with pytest.raises(ServerError, match=said) as error:
            sync([study])
        assert error.value.exit_code == 74


@pytest.mark.parametrize(
    ("writes", "says", "sent"), [(True, "", True), (False, module.TORN, True), (False, "refused", False)]
)
def test_what_the_client_has_sent_is_remembered(study, monkeypatch, capsys, writes, says, sent):
    monkeypatch.setattr(module, "server", lambda: HERE)
    monkeypatch.setattr(module, "has_credentials", lambda: True)
    monkeypatch.setattr(module, "unreachable", lambda address: "")
    calls = []

    def client(command, **more):
        logs = [Path(word) for word in command if word.endswith(".wandb")]
        calls.append(logs)
        for log in logs if writes else ():
            log.with_suffix(".wandb.synced").touch()
        lines = "".join(f'ERROR Failed to sync all data from "{log.parent}": the file {says}.\n' for log in logs)
        return module.subprocess.CompletedProcess(command, 0, "" if writes else lines, "")

    monkeypatch.setattr(module.subprocess, "run", client)
    if sent:
        sync([study])
        sync([study])
        assert len(calls) == 1
        assert "0 runs sent" in capsys.readouterr().out
    else:
        with pytest.raises(ServerError, match="did not take"):
            sync([study])
        assert plan_of(tracked_in(study), HERE).send
