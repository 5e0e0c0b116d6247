"""Which of the folders of W&B are sent: of each run the newest that is whole, once, by content and server."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from lcprobe.errors import ConfigError, ServerError
from lcprobe.files import digest_file, write_json
from lcprobe.studies.tracking import sync as module
from lcprobe.studies.tracking.identity import IDENTITY
from lcprobe.studies.tracking.sync import SENT, plan_of, sync, tracked_in

HERE, THERE = "https://here.example.org", "https://there.example.org"


def log_of(
    losses: Mapping[int, float] = {}, summary: tuple[str, ...] = (), exit_code: int | None = 0, id="5eed-a"
) -> bytes:
    """A log as W&B's client writes it, with records longer than what is left of a block."""
    from wandb.proto import wandb_internal_pb2 as pb

    records = [pb.Record(run=pb.RunRecord(run_id=id))]
    for tokens, loss in losses.items():
        row = {"tokens": tokens, "train/loss": loss, "note": "x" * 20_000}
        items = [pb.HistoryItem(nested_key=[key], value_json=json.dumps(value)) for key, value in row.items()]
        records.append(pb.Record(history=pb.HistoryRecord(item=items)))
    items = [pb.SummaryItem(nested_key=[name], value_json="1") for name in summary]
    records.append(pb.Record(summary=pb.SummaryRecord(update=items)))
    if exit_code is not None:
        records.append(pb.Record(exit=pb.RunExitRecord(exit_code=exit_code)))
    data = bytearray(b":W&B\xe1\xbe\x00")
    for record in map(pb.Record.SerializeToString, records):
        first = True
        while first or record:
            left = 32768 - len(data) % 32768
            if left < 7:
                data += bytes(left)
                continue
            piece, record = record[: left - 7], record[left - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            data += bytes(4) + len(piece).to_bytes(2, "little") + bytes([kind]) + piece
            first = False
    return bytes(data)


def folder_of(study: Path, run: str, begun: str, id: str, offline: bool = True, content: bytes | None = None) -> Path:
    folder = study / run / "wandb" / f"{'offline-' if offline else ''}run-20261130_{begun}-{id}"
    folder.mkdir(parents=True)
    (folder / f"run-{id}.wandb").write_bytes(log_of(id=id) if content is None else content)
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
    next(one for one in plan.send if one.id == "5eed-c").log.write_bytes(log_of({1: 0.5}))
    assert [one.id for one in plan_of(found, HERE).send] == ["5eed-c"]


TRAINED, PROBED = {1: 9.0, 2: 8.0, 3: 7.0}, ("eval/a@64",)


@pytest.mark.parametrize(
    ("newest", "taken"),
    [
        (b"", "old"),
        (b":W&B\xe1\xbe\x00", "old"),
        (log_of(TRAINED, PROBED)[:30], "old"),
        (log_of({1: 9.0, 2: 8.0}, exit_code=None), "old"),
        (log_of({}, exit_code=None), "old"),
        (log_of(TRAINED, exit_code=None), "old"),
        (log_of(TRAINED, exit_code=255), "old"),
        (log_of(TRAINED, (*PROBED, "eval/b@64"), exit_code=None), "new"),
        (log_of(TRAINED), "new"),
        (log_of(TRAINED | {4: 6.0}, exit_code=None), "new"),
        (log_of({1: 9.0, 2: 7.5}, exit_code=None), "new"),  # another training, which was begun anew
    ],
)
def test_a_newer_folder_that_is_not_whole_does_not_replace_an_older_one(tmp_path, capsys, newest, taken):
    old = folder_of(tmp_path, "a", "100000", "5eed-a", content=log_of(TRAINED, PROBED))
    new = folder_of(tmp_path, "", "110000", "5eed-a", content=newest)
    plan = plan_of(tracked_in(tmp_path), HERE)
    assert [one.log.parent for one in plan.send] == [{"old": old, "new": new}[taken]]
    assert plan.superseded == 1
    assert [note.startswith(f"{new}: ") and note.endswith(f"{old.name} is taken instead") for note in plan.notes] == (
        [True] if taken == "old" else []
    )


def test_what_went_on_online_is_there_and_a_torn_folder_alone_is_not_sent(tmp_path):
    folder_of(tmp_path, "a", "100000", "5eed-a", content=log_of(TRAINED, PROBED))
    folder_of(tmp_path, "a", "110000", "5eed-a", offline=False, content=log_of({}, ("eval/b@64",), None))
    folder_of(tmp_path, "b", "100000", "5eed-b", content=b"")
    plan = plan_of(tracked_in(tmp_path), HERE)
    assert (plan.send, plan.sent) == ([], 1)
    assert len(plan.notes) == 1
    assert "nothing is sent of its run" in plan.notes[0]


def test_nothing_is_sent_without_credentials_answer_or_runs(study, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(module, "server", lambda: HERE)
    monkeypatch.setattr(module, "_send", lambda *given: pytest.fail("sent"))
    with pytest.raises(ConfigError, match="tracked offline"):
        sync([tmp_path_factory.mktemp("empty")])
    none, broken = ((False, ""), "", "no credentials"), ((False, "a short key"), "", "a short key")
    for credentials, reason, said in (none, broken, ((True, ""), "no answer", "no answer")):
        monkeypatch.setattr(module, "credentials", lambda found=credentials: found)
        monkeypatch.setattr(module, "unreachable", lambda address, why=reason: why)
        with pytest.raises(ServerError, match=said) as error:
            sync([study])
        assert error.value.exit_code == 74


@pytest.mark.parametrize(
    ("writes", "says", "sent"), [(True, "", True), (False, module.TORN, True), (False, "refused", False)]
)
def test_what_the_client_has_sent_is_remembered(study, monkeypatch, capsys, writes, says, sent):
    monkeypatch.setattr(module, "server", lambda: HERE)
    monkeypatch.setattr(module, "credentials", lambda: (True, ""))
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


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "nonsense"), ("WANDB_BASE_URL", "no address")])
def test_settings_that_wandb_cannot_read_are_one_line(study, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^(WANDB_MODE|W&B's settings): ") as error:
        sync([study])
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_two_at_once_send_a_run_once_whatever_folder_they_name(study, monkeypatch):
    (study / IDENTITY).write_text("{}")
    for name, value in (("server", lambda: HERE), ("credentials", lambda: (True, "")), ("unreachable", lambda _: "")):
        monkeypatch.setattr(module, name, value)
    began, go_on, sent = threading.Event(), threading.Event(), []

    def send(runs, address):
        if not sent:
            began.set()
            assert go_on.wait(60)
        sent.extend(one.log for one in runs)
        for one in runs:
            write_json(one.log.parent / SENT, {address: digest_file(one.log)})
        return []

    monkeypatch.setattr(module, "_send", send)
    first = threading.Thread(target=sync, args=([study],))
    first.start()
    assert began.wait(60)
    second = threading.Thread(target=sync, args=([study / "c", study],))
    second.start()
    second.join(0.3)  # it waits, or is late; had it sent, so would both
    go_on.set()
    first.join(60)
    second.join(60)
    assert len(sent) == len(set(sent)) == 2, sent
