"""Files are written atomically; published folders match their manifest."""

import errno
import multiprocessing
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lcprobe.files
from lcprobe.errors import ConfigError
from lcprobe.files import MANIFEST, check_name, publish_folder, remove_leftovers, verify_folder, write_atomic
from lcprobe.locks import process_tag, this_process


def make_folder(root):
    temporary = root / ".tmp"
    temporary.mkdir()
    (temporary / "a.bin").write_bytes(bytes(range(256)) * 8)
    (temporary / "b.json").write_text("{}")
    publish_folder(temporary, root / "final", {"step": 3})
    return root / "final"


def test_a_published_folder_verifies(tmp_path):
    manifest, damage = verify_folder(make_folder(tmp_path))
    assert damage is None
    assert manifest["step"] == 3
    assert not (tmp_path / ".tmp").exists()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["flip", "truncate", "delete", "empty manifest", "no manifest"]),
    st.integers(0, 2047),
    st.integers(0, 7),
)
def test_every_kind_of_damage_is_detected(tmp_path_factory, kind, at, bit):
    folder = make_folder(tmp_path_factory.mktemp("f"))
    data = bytearray((folder / "a.bin").read_bytes())
    if kind == "flip":
        data[at] ^= 1 << bit
        (folder / "a.bin").write_bytes(data)
    elif kind == "truncate":
        (folder / "a.bin").write_bytes(data[:at])
    elif kind == "delete":
        (folder / "a.bin").unlink()
    elif kind == "empty manifest":
        (folder / MANIFEST).write_text("")
    else:
        (folder / MANIFEST).unlink()
    assert verify_folder(folder)[1] is not None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("what", ["read_json", "digest_file"])
def test_what_cannot_be_read_now_is_not_damaged(tmp_path, monkeypatch, what, code):
    """Else a checkpoint that is whole is renamed to bad-*, and training goes back to the one before."""
    folder = make_folder(tmp_path)

    def fail(path):
        raise OSError(code, "not now", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(lcprobe.files, what, fail)
        with pytest.raises(OSError, match="not now"):
            verify_folder(folder)
    assert verify_folder(folder)[1] is None
    (folder / MANIFEST).unlink()
    assert verify_folder(folder)[1] is not None


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_atomic(tmp_path / "x", "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomic(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "", "-x", "a\nb", "x" * 101, ".hidden", "é"])
def test_names_cannot_leave_their_folder(name):
    with pytest.raises(ConfigError):
        check_name("study.name", name)


def test_a_temporary_file_outlives_no_clean_up_unless_its_writer_runs(tmp_path, monkeypatch):
    own, here = process_tag(), this_process()
    boot, namespace, pid, _ = own.split("-")
    dead = {f"{boot}-{namespace}-{pid}-{here.started - 1}", f"{boot}-{namespace}-{2**22 + 1}-7"}
    kept = {own, f"0badb001-{namespace}-{pid}-7", f"{boot}-1-{pid}-7", "7", "not a tag"}
    (tmp_path / "run").mkdir()
    for tag in dead | kept:
        for folder in (tmp_path, tmp_path / "run"):
            (folder / f".status.json.{tag}.tmp").write_text("half")
    (tmp_path / "status.json").write_text("{}")
    remove_leftovers(tmp_path, below=False)
    assert len(list((tmp_path / "run").iterdir())) == len(dead | kept)
    remove_leftovers(tmp_path)
    for folder in (tmp_path, tmp_path / "run"):
        assert {p.name[len(".status.json.") : -len(".tmp")] for p in folder.glob(".*")} == kept
    for path in tmp_path.rglob(".*.tmp"):
        os.utime(path, (1, 1))
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.rglob(".*.tmp")} == {f".status.json.{own}.tmp"}, "others are deleted after a day"


def write_and_die(path):
    os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(path, "new")


def test_what_a_killed_process_leaves_is_found(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(tmp_path / "x",))
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
