"""What all processes of a run know is said by the first; an error of one process alone, by that one."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError, NumericsError, StoppedEarly, StoppedUnsaved, run_command
from lcprobe.locks import folder_lock, said_once
from lcprobe.locks.said_once import is_said_by_another
from lcprobe.training import saving
from lcprobe.training.processes import known_to_all, processes
from tests.tiny import write_config
from validation.forked import run_forked

STOPS = (StoppedEarly, StoppedUnsaved, NumericsError, KeyboardInterrupt)


def started(monkeypatch, rank: int) -> None:
    monkeypatch.setattr(said_once, "WAIT_SECONDS", 0.05)
    values = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "here", "MASTER_PORT": 29500}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("model.d_model", 3, "even"), 2),
        (NumericsError("step 3"), 4),
        (StoppedUnsaved("not saved"), 74),
        (StoppedEarly("stopped"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_the_first_says_what_all_know_and_all_end_with_its_code(monkeypatch, capsys, rank, error, code):
    started(monkeypatch, rank)

    def body() -> int:
        with known_to_all(ConfigError, *STOPS):
            raise error

    assert run_command(body) == code
    assert (capsys.readouterr().err == "") == (rank == 1)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_mistake_is_said_by_any_process_that_ends_with_it_before_they_have_joined(
    rank, monkeypatch, capsys, tmp_path, data_settings
):
    """torchrun ends the others as soon as one ends, said or not."""
    started(monkeypatch, rank)
    config = write_config(tmp_path, data_settings)
    assert train_main([str(config), f"train.guardz{rank}=1"]) == 2
    assert f"error: train.guardz{rank}: an unknown key" in capsys.readouterr().err
    assert evaluate_main([str(config), f"probe.guardz{rank}=1"]) == 2
    assert f"error: probe.guardz{rank}: an unknown key" in capsys.readouterr().err


def _is_said_when_it_ends(folder: Path) -> None:
    def body() -> int:
        with known_to_all(ConfigError):
            raise ConfigError("key", 1, "2")

    if processes().rank == 0:
        time.sleep(0.3)
    run_command(body)
    (folder / str(processes().rank)).write_text(str(said_once._path("error: key: given 1; allowed: 2").is_file()))


def test_who_leaves_a_line_to_the_first_ends_after_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    run_forked(2, _is_said_when_it_ends, tmp_path)
    assert (tmp_path / "1").read_text() == "True"
    assert capfd.readouterr().err.count("error: key") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_alone_is_said_by_it(monkeypatch, capsys, rank):
    started(monkeypatch, rank)

    def body() -> int:
        with known_to_all(*STOPS):
            raise FileNotFoundError(2, "No such file", "corpus")

    assert run_command(body) == 74
    assert "corpus" in capsys.readouterr().err


def test_another_error_after_one_that_was_left_to_the_first_is_said(monkeypatch, capsys):
    started(monkeypatch, 1)

    def body() -> int:
        try:
            with known_to_all(NumericsError):
                raise NumericsError("of a trial")
        except NumericsError:
            raise ConfigError("a.b", 1, "2") from None

    assert run_command(body) == 2
    assert "a.b" in capsys.readouterr().err


def _full_disk() -> None:
    """Of the main process, as the others know by it alone."""
    if processes().rank == 0:
        saving.require_room_to_save = lambda folder, parameters: refuse("No space left on device")


def refuse(why: str) -> None:
    raise OSError(28, why)


def _codes(config: str, run: str) -> list[int]:
    two = ["train.devices=2"]
    alone = [*two, "train.guards.non_finite=stop", "train.lr=1e15", "train.warmup=0"]
    given = [["train.lr=-1"], ["train.devices=4"], alone]
    given += [["model.layout=mambo"], ["data.corpus=[nowhere.jsonl]"]]  # refused by the plan
    codes = [train_main([config, *own]) for own in given]
    codes += [evaluate_main([config, "probe.batch_tokens=0"]), evaluate_main(["nowhere.yaml"])]
    with folder_lock(Path(run)) if processes().rank == 0 else nullcontext():  # seen by the main process
        codes.append(train_main([config, *two]))
    _full_disk()
    return [*codes, train_main([config, *two, "train.checkpoint_every=256"])]


def test_two_processes_say_each_of_their_common_errors_once(tmp_path, data_settings, capfd):
    train = {"tokens": 64 * 4 * 8, "accelerator": "cpu"}
    probe = {"while_training": None}
    config = write_config(
        tmp_path, data_settings, grid={}, match={"budget": None}, model={"d_ff": 24}, train=train, probe=probe
    )
    run = tmp_path / "runs" / "tiny" / "run"
    assert run_forked(2, _codes, str(config), str(run)) == [2, 2, 4, 2, 2, 2, 2, 6, 74]
    printed = capfd.readouterr().err
    errors = [line.partition("error: ")[2] for line in printed.splitlines() if line.startswith("error: ")]
    wanted = (
        "train.lr:",
        "train.devices:",
        "step ",
        "model.layout",
        "data.corpus",
        "probe.batch_tokens",
        "config file",
    )
    wanted += (f"{run}: locked by", "input/output: ")
    assert len(errors) == len(wanted), errors
    assert [own for own, start in zip(errors, wanted, strict=True) if not own.startswith(start)] == []
    assert "Traceback" not in printed


def _own_line_said(started_twice: Path) -> list[bool]:
    """Whether this process is to be silent: of a line of both, of a line of its own, and of one of an earlier start."""
    rank = processes().rank
    found = [is_said_by_another("of both"), is_said_by_another(f"of {rank}"), is_said_by_another("of both")]
    (started_twice / str(rank)).write_text(json.dumps(found))
    return found


def test_of_a_line_that_two_processes_have_one_is_silent_and_of_its_own_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for _ in range(2):  # a second start, of the same parent, says it again
        run_forked(2, _own_line_said, tmp_path)
        found = [json.loads((tmp_path / rank).read_text()) for rank in "01"]
        assert sorted(silent for silent, _, _ in found) == [False, True]
        assert [own for _, own, _ in found] == [False, False]
        assert [again for _, _, again in found] == [first for first, _, _ in found]


def test_a_process_alone_says_everything_and_so_do_several_where_no_file_can_be_written(monkeypatch):
    assert not is_said_by_another("a line")
    started(monkeypatch, 1)
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    assert not is_said_by_another("a line")
