"""A process that waits for another one's preparation goes on with it when that one ends, however it ends: also on
another machine, and by deleting the folder that it had made."""

import json
import os

import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import prepare
from lcprobe.data.preparing import build as building
from lcprobe.data.preparing import chunks, writing
from lcprobe.data.sources.sotu import speeches
from lcprobe.files import digest_file
from lcprobe.locks import ClaimLost, Claims, claim, lock
from lcprobe.schema import build

ELSEWHERE = {
    "host": "node-9",
    "pid": 5,
    "boot": "aaaa",
    "namespace": "x",
    "started": 7,
    "flocked": True,
    "beats": 15.0,
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A corpus of some chunks, with a state after each."""
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 9000)
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.001)
    rows = [{"text": text[:3000]} for text in list(speeches())[:20]]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def made(folder):
        settings = {"corpus": [str(tmp_path / "a.jsonl")], "folder": str(tmp_path / folder), "workers": 1}
        return build(DataConfig, settings, "data")

    return made


def files(prepared):
    return {path.name: digest_file(path) for path in prepared.folder.iterdir() if path.suffix != ".json"}


def owner_of(config, prepared):
    """The lock of the same preparation in another folder."""
    return prepared.folder.parent.parent / config.folder / f".{prepared.folder.name}.owner"


def test_what_a_dead_machine_prepared_is_gone_on_with(config, monkeypatch):
    whole, own = prepare(config("whole")), config("cut")
    path, take = owner_of(own, whole), writing.Writer.take

    def taken_over(self, chunk, encoded):
        take(self, chunk, encoded)
        if self.written.documents > 8:  # this process stood still for minutes, and the other machine went on
            path.write_text(json.dumps(ELSEWHERE))

    with monkeypatch.context() as away:
        away.setattr(writing.Writer, "take", taken_over)
        with pytest.raises(ClaimLost):
            prepare(own)
    (state,) = path.parent.glob(".*.tmp/state.json")
    assert json.loads(state.read_text())["written"]["documents"] > 8
    assert json.loads(path.read_text()) == ELSEWHERE, "what the other one has is left to it"

    class Clock:  # a minute passes whenever somebody looks
        now = 0.0

        def monotonic(self):
            self.now += 60
            return self.now

    monkeypatch.setattr(claim, "time", Clock())
    os.utime(path, (5, 5))
    assert files(prepare(own)) == files(whole)
    assert [one.name for one in path.parent.iterdir()] == [whole.folder.name]


@pytest.mark.parametrize("moment", ["while the other one looks", "right after it has made the folder"])
def test_a_folder_that_its_maker_deletes_as_nothing_is_in_it_is_made_again(config, monkeypatch, moment):
    whole, own = prepare(config("whole")), config("new")
    path = owner_of(own, whole)
    first, waits = Claims(path.parent, ending=".owner").take(path.name.removesuffix(".owner")), []

    def ended(*given):
        if not waits:
            first.release()
            path.parent.rmdir()
        waits.append(1)

    if moment == "while the other one looks":
        monkeypatch.setattr(lock.time, "sleep", ended)
    else:
        taken = claim.take
        monkeypatch.setattr(claim, "take", lambda *given: (ended(), taken(*given))[1])
    assert files(prepare(own)) == files(whole)
    assert waits
