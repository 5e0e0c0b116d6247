"""Files are written atomically; published folders match their manifest."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError
from lcprobe.files import MANIFEST, check_name, publish_folder, verify_folder, write_atomic


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
