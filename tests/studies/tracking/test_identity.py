"""Ids of W&B runs: stable where a study goes on, different where it is another one."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

from lcprobe.studies.tracking.identity import IDENTITY, run_id, study_id


def test_the_id_of_a_run_is_the_same_at_every_call_and_differs_by_run_job_and_folder(tmp_path):
    ids = [
        run_id(tmp_path / folder / "study", run, job)
        for folder in ("a", "b")
        for run in ("", "mamba2", "mamba2-s1", "sweep/mamba2")
        for job in ("train", "eval", "probe")
    ]
    assert len(set(ids)) == len(ids)
    assert run_id(tmp_path / "a" / "study", "mamba2", "eval") == ids[4]
    assert all(re.fullmatch(r"[0-9a-f]{10}-[0-9a-f]{10}", one) for one in ids)


def test_a_moved_study_goes_on_and_a_copy_is_another_one(tmp_path):
    here = tmp_path / "here"
    first = study_id(here)
    shutil.copytree(here, tmp_path / "copy")
    copied = study_id(tmp_path / "copy")
    assert copied != first
    assert study_id(tmp_path / "copy") == copied
    assert study_id(here) == first
    here.rename(tmp_path / "moved")
    assert study_id(tmp_path / "moved") == first
    (tmp_path / "moved").rename(here)
    assert study_id(here) == first


def test_runs_that_begin_at_once_have_one_study(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: study_id(tmp_path / "new"), range(16)))) == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [IDENTITY]


def test_a_study_under_two_names_is_one(tmp_path):
    first = study_id(tmp_path / "here")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    assert study_id(tmp_path / "link") == first


def test_a_lost_or_broken_file_is_made_again_from_the_folders_of_wandb(tmp_path):
    kept = run_id(tmp_path, "mamba2", "train")
    newer = "fedcba9876"
    for at, study in (("20261130_120000", kept[:10]), ("20261130_130000", newer), ("20261130_110000", "0123456789")):
        (tmp_path / "mamba2" / "wandb" / f"offline-run-{at}-{study}-{kept[11:]}").mkdir(parents=True)
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{"), lambda path: path.write_text("[]")):
        damage(tmp_path / IDENTITY)
        assert study_id(tmp_path) == newer
    shutil.rmtree(tmp_path / "mamba2")
    (tmp_path / IDENTITY).unlink()
    assert study_id(tmp_path) not in (kept[:10], newer)
