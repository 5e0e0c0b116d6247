"""A preparation that is killed at any moment goes on where it was, with any number of processes, and gives the same
bytes; a source that changed meanwhile starts over."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time

import pytest

from lcprobe.data import shards
from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import prepare
from lcprobe.data.preparing import build as building
from lcprobe.data.preparing import chunks, leftovers, pool, writing
from lcprobe.data.preparing.encoding import Part
from lcprobe.data.preparing.worker import EncoderSettings
from lcprobe.data.sources import file_kinds
from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import DataError, ReadError, StoppedEarly
from lcprobe.files import digest_file
from lcprobe.schema import build
from lcprobe.tasks.text.tokenizer import load_tokenizer

SPEECHES = [text[:6000] for text in list(speeches())[:36]]


@pytest.fixture
def small(monkeypatch):
    """Chunks of a few documents, a state after each, shards of a few chunks, and parts of a long document."""
    monkeypatch.setattr(chunks, "CHUNK_CHARS", 9000)
    monkeypatch.setattr(building, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 7000)
    monkeypatch.setattr(pool, "HERE_CHARS", 0)


@pytest.fixture
def corpus(tmp_path):
    """Rows, compressed and not, with some that have no text or are there twice, and a text that is read in parts."""
    rows = [*SPEECHES[:24], None, SPEECHES[3] + " The end.", " "]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    (tmp_path / "b.txt").write_text("\n".join(SPEECHES[24:]) * 20)
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")]


def settings(folder, corpus, **more):
    given = {"corpus": corpus, "folder": str(folder), "held_out": 0.2, "workers": 1, "haystack_chars": 30_000, **more}
    return build(DataConfig, given, "data")


def files(prepared):
    """Digests of all files, and the facts of the manifest."""
    facts = {key: value for key, value in prepared.manifest.items() if key not in ("files", "made_from")}
    return {path.name: digest_file(path) for path in prepared.folder.iterdir() if path.suffix != ".json"}, facts


def in_a_process(config, kill_after=None):
    """Prepare in a fork, which kills itself before it writes chunk number `kill_after`; its exit code."""

    def run():
        take, taken = writing.Writer.take, 0

        def take_or_die(self, chunk, encoded):
            nonlocal taken
            taken += 1
            if taken == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            take(self, chunk, encoded)

        writing.Writer.take = take_or_die
        prepare(config)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("max_tokens", [None, 12_000])
def test_killed_at_every_chunk(tmp_path, corpus, small, max_tokens):
    whole = files(prepare(settings(tmp_path / "whole", corpus, max_tokens=max_tokens)))
    config = settings(tmp_path / "cut", corpus, max_tokens=max_tokens)
    killed = 0
    while in_a_process(config, kill_after=2) == -signal.SIGKILL:  # a chunk further each time
        killed += 1
    assert killed > (10 if max_tokens is None else 1)
    assert files(prepare(config)) == whole


def test_what_is_behind_the_latest_state_is_cut_off(tmp_path, corpus, small):
    whole = files(prepare(settings(tmp_path / "whole", corpus)))
    config = settings(tmp_path / "cut", corpus)
    in_a_process(config, kill_after=5)
    (unfinished,) = (tmp_path / "cut").glob(".*.tmp")
    growing = [max(unfinished.glob("tokens-*")), unfinished / "starts.bin", *unfinished.glob("*.raw")]
    for path in growing:
        with path.open("ab") as file:
            file.write(b"torn")
    (unfinished / "tokens-00900.bin").write_bytes(b"later")
    (unfinished / "manifest.json").write_text("{}")
    (unfinished / "starts.npy").write_bytes(b"half")
    assert files(prepare(config)) == whole
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [prepare(config).folder.name]


def test_another_number_of_processes_changes_nothing(tmp_path, corpus, small):
    whole = files(prepare(settings(tmp_path / "whole", corpus)))
    config = settings(tmp_path / "cut", corpus, workers=2)
    assert in_a_process(config, kill_after=7) == -signal.SIGKILL
    assert files(prepare(config)) == whole


def test_a_source_that_changed_starts_over(tmp_path, corpus, small, caplog):
    config = settings(tmp_path / "out", corpus)
    in_a_process(config, kill_after=5)
    with open(corpus[0], "a") as file:
        file.write(json.dumps({"text": "One more."}) + "\n")
    with caplog.at_level("INFO"):
        changed = files(prepare(config))
    assert "changed since preparing began: it starts over" in caplog.text
    assert changed == files(prepare(settings(tmp_path / "whole", corpus)))
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_what_another_corpus_left_is_kept_for_a_week(tmp_path, corpus, small):
    in_a_process(settings(tmp_path / "out", corpus), kill_after=5)
    (unfinished,) = (tmp_path / "out").glob(".*.tmp")
    other = settings(tmp_path / "out", corpus, held_out=0.3)
    prepare(other)
    assert unfinished.is_dir()
    old = time.time() - 86400 * (leftovers.KEPT_DAYS + 1)
    os.utime(unfinished / "state.json", (old, old))
    prepare(other)
    assert not unfinished.exists()


def test_a_process_that_ends_by_itself_is_named_and_its_work_goes_on(tmp_path, corpus, small, monkeypatch):
    started = pool._started

    def started_and_killed(settings):
        one = started(settings)
        one.process.kill()
        return one

    config = settings(tmp_path / "out", corpus, workers=2)
    monkeypatch.setattr(pool, "HERE_CHARS", 20_000)
    with monkeypatch.context() as patched:
        patched.setattr(pool, "_started", started_and_killed)
        with pytest.raises(StoppedEarly, match=r"ended by itself \(exit code -9\); allowed: enough memory"):
            prepare(config)
    assert list((tmp_path / "out").glob(".*.tmp/state.json"))
    whole = files(prepare(settings(tmp_path / "whole", corpus)))
    assert files(prepare(config)) == whole


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT])
def test_what_a_disk_does_not_give_costs_nothing_that_was_prepared(tmp_path, corpus, small, monkeypatch, number):
    whole, config = files(prepare(settings(tmp_path / "whole", corpus))), settings(tmp_path / "cut", corpus)

    def opened(path, mode):
        if path.suffix == ".txt" and list((tmp_path / "cut").glob(".*.tmp/state.json")):
            raise OSError(number, os.strerror(number))
        return open(path, mode)

    with monkeypatch.context() as failing:
        failing.setattr(file_kinds, "open", opened, raising=False)
        with pytest.raises(ReadError, match=r"b\.txt: not readable \("):
            prepare(config)
    (state,) = (tmp_path / "cut").glob(".*.tmp/state.json")
    assert json.loads(state.read_text())["written"]["documents"] > 20
    assert files(prepare(config)) == whole


def test_ctrl_c_reaches_no_process_that_starts():
    """A terminal sends it to all processes of a group, also to those that import Python's own modules."""
    settings = EncoderSettings(load_tokenizer("shipped", None).json_text, True, None, 1.0)

    def run():
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        one = pool._started(settings)
        pool._send(one, [Part("Some words.", False)])
        while not one.pipe.poll(0.02):
            os.killpg(0, signal.SIGINT)
            assert one.process.poll() is None
        assert len(one.pipe.recv().ids) > 1
        one.pipe.close()
        assert one.process.wait() == 0

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_what_cannot_be_used_is_deleted(tmp_path, corpus, small):
    with open(corpus[0], "a") as file:
        file.write("{")
    with pytest.raises(DataError, match="is no JSON"):
        prepare(settings(tmp_path / "out", corpus))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, corpus, small):
    whole = files(prepare(settings(tmp_path / "whole", corpus)))
    context, begin = multiprocessing.get_context("fork"), time.perf_counter()
    alone = context.Process(target=prepare, args=(settings(tmp_path / "alone", corpus),))
    alone.start()
    alone.join()
    seconds = time.perf_counter() - begin
    rng, killed = random.Random(0), 0
    for trial in range(20):
        config = settings(tmp_path / str(trial), corpus, workers=1 + trial % 2)
        process = context.Process(target=prepare, args=(config,))
        process.start()
        time.sleep(rng.uniform(0, seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert files(prepare(config)) == whole, trial
    assert killed >= 5
