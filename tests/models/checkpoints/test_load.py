"""Files that are damaged, incomplete or unsafe: one line that names the file, and the tensor or key; and what files may
have in addition."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcprobe.errors import CheckpointError
from lcprobe.models.checkpoints import files
from lcprobe.models.checkpoints.contract import NotCovered
from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.load import load_published, open_folder, recognised
from tests.models.checkpoints.tiny_models import tiny

EMBEDDING, NORM = "backbone.embedding.weight", "backbone.norm_f.weight"
MIXER = "backbone.layers.1.mixer.in_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint without a manifest, as others write them."""
    export(tiny("mamba2"), "mamba_ssm", tmp_path / "m")
    (tmp_path / "m" / "manifest.json").unlink()
    return tmp_path / "m"


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(weights(folder))
    edit(tensors)
    save_file(tensors, weights(folder))


def as_pytorch(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object] = lambda tensors: None) -> Path:
    """The same checkpoint in a file of PyTorch's, its head tied."""
    tensors = load_file(weights(folder))
    tensors["lm_head.weight"] = tensors[EMBEDDING]
    edit(tensors)
    weights(folder).unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def set_config(folder: Path, edit: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def message(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_published(recognised(folder))
    line = str(error.value)
    assert line.startswith(str(folder)), line
    assert "\n" not in line
    return line.removeprefix(f"{folder}")


def altered(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_a_truncated_file(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:-100])
    assert message(folder).startswith("/model.safetensors: not a whole safetensors file (")


def test_a_file_of_another_kind(folder):
    weights(folder).write_bytes(b"<html>not found</html>")
    assert message(folder).startswith("/model.safetensors: not a whole safetensors file (")


def test_altered_bytes_of_a_file_with_digests(tmp_path):
    export(tiny("mamba2"), "mamba_ssm", tmp_path / "m")
    altered(weights(tmp_path / "m"), -3)
    assert message(tmp_path / "m") == ": model.safetensors does not match its digest"


def test_altered_bytes_of_a_file_in_the_hubs_cache(folder, tmp_path):
    """Its snapshot links to a file that is named by its digest."""
    blob = tmp_path / "blobs" / files.digest_file(weights(folder))
    blob.parent.mkdir()
    weights(folder).rename(blob)
    weights(folder).symlink_to(blob)
    load_published(recognised(folder))
    altered(blob, -3)
    assert message(folder).startswith("/model.safetensors: does not match its digest in the hub's cache")


def test_altered_bytes_of_a_file_with_checksums(folder):
    path = as_pytorch(folder)
    altered(path, files.stored_tensors([path])[MIXER].offset + 7)
    assert message(folder) == f"/pytorch_model.bin: {MIXER}: the bytes do not match the file's checksum"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite(folder, value, dtype):
    def edit(tensors):
        tensors[MIXER] = tensors[MIXER].to(dtype)
        tensors[MIXER][3, 2] = value

    change(folder, edit)
    assert message(folder) == f"/model.safetensors: {MIXER}: numbers that are not finite"


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda t: t.pop(MIXER), f": no tensor {MIXER} in model.safetensors"),
        (lambda t: t.update(other=torch.zeros(2)), "/model.safetensors: an unexpected tensor other; allowed: those of mamba_ssm"),
        (lambda t: t.update({NORM: torch.ones(25)}), f"/model.safetensors: {NORM} has shape [25]; allowed: [24]"),
        (lambda t: t.update({NORM: torch.ones(24, dtype=torch.int8)}), f"/model.safetensors: {NORM}: numbers of type I8; allowed: F64 | F32 | F16 | BF16"),
        (lambda t: t["lm_head.weight"][40].fill_(2), f"/model.safetensors: lm_head.weight differs from {EMBEDDING}, which config.json ties it to"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_those_of_the_model(folder, edit, line):
    change(folder, edit)
    assert message(folder) == line


def test_rows_of_another_vocabulary(folder):
    """The embedding has the vocabulary's rows, padded."""
    set_config(folder, lambda config: config.update(vocab_size=70))
    assert message(folder) == f"/model.safetensors: {EMBEDDING} has shape [64, 24]; allowed: [80, 24]"


class Code:
    def __reduce__(self):
        return (os.mkdir, ("ran",))


def test_a_pickle_with_code_does_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_pytorch(folder, lambda tensors: tensors.update(other=Code()))
    line = message(folder)
    assert line.startswith("/pytorch_model.bin: refused: a pickle with code (posix.mkdir)")
    assert not (tmp_path / "ran").exists()


def test_a_bare_pickle_with_code_does_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_pytorch(folder).write_bytes(pickle.dumps(Code()))
    assert message(folder).startswith("/pytorch_model.bin: truncated, or not of PyTorch 1.6 or later")
    assert not (tmp_path / "ran").exists()


def test_a_truncated_pytorch_file(folder):
    path = as_pytorch(folder)
    path.write_bytes(path.read_bytes()[:-500])
    assert message(folder).startswith("/pytorch_model.bin: truncated, or not of PyTorch 1.6 or later")


def test_a_pytorch_file_with_something_else(folder):
    as_pytorch(folder, lambda tensors: tensors.update(step=7))
    assert message(folder) == "/pytorch_model.bin: step is of type int; allowed: a tensor"


def test_a_missing_shard(tmp_path):
    export(tiny("mamba2"), "mamba_ssm", tmp_path / "m", shard_bytes=9000)
    (tmp_path / "m" / "manifest.json").unlink()
    shard = sorted((tmp_path / "m").glob("model-*.safetensors"))[1]
    shard.unlink()
    assert message(tmp_path / "m") == f"/{shard.name}: missing, but named in model.safetensors.index.json"


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "/etc/passwd"])
def test_an_index_that_points_elsewhere(folder, name):
    weights(folder).unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {NORM: name}}))
    assert message(folder) == f"/{index.name}: a shard '{name}'; allowed: names of files beside the index"


def test_no_weights(folder):
    weights(folder).unlink()
    assert message(folder) == ": no weights; allowed: safetensors, or PyTorch's .bin or .pth"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", "/config.json: not JSON (Expecting property name"),
        ("[1]", "/config.json: of type list; allowed: an object"),
        ('{"model_type": "mamba2"}', "/config.json: hidden_size: given 'nothing'; allowed: a value"),
        ('{"model_type": "never_seen"}', ": model_type 'never_seen' in config.json; allowed: a checkpoint of "),
        ("{}", "/model.safetensors: no config.json, and no tensor of RWKV"),
    ],
)
def test_a_config_that_cannot_be_read(folder, text, line):
    (folder / "config.json").write_text(text)
    assert message(folder).startswith(line)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda c: c.pop("vocab_size"), "vocab_size: given 'nothing'; allowed: a value"),
        (lambda c: c.update(d_model="wide"), "d_model: given 'wide'; allowed: a whole number >= 1"),
        (lambda c: c.update(attn_layer_idx=[7]), "attn_layer_idx: given [7]; allowed: layers 0 .. 1"),
        (lambda c: c["ssm_cfg"].update(headdim=7), "model.mixers.mamba2.head_dim: given 7; allowed: a divisor"),
    ],
)
def test_settings_that_are_missing_or_wrong(folder, edit, line):
    set_config(folder, edit)
    assert line in message(folder)


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (lambda c: c["ssm_cfg"].update(layer="Mamba9"), "ssm_cfg.layer: given 'Mamba9'; allowed: Mamba1 | Mamba2 | Mamba3"),
        (lambda c: c["ssm_cfg"].update(norm_before_gate=True), "ssm_cfg.norm_before_gate: given True; allowed: False"),
        (lambda c: c["ssm_cfg"].update(d_ssm=8), "ssm_cfg.d_ssm: given 8; allowed: None"),
        (lambda c: c["ssm_cfg"].update(novelty=1), "ssm_cfg.novelty: given 1; allowed: no such key"),
        (lambda c: c.update(attn_layer_idx=[0], attn_cfg={"num_heads": 2, "causal": False}), "attn_cfg.causal: given False; allowed: True"),
    ],
)  # fmt: skip
def test_what_our_mixers_lack_is_said(folder, edit, line):
    set_config(folder, edit)
    with pytest.raises(NotCovered) as error:
        open_folder(folder)
    assert str(error.value) == f"{folder}/config.json: {line}"


def test_rescaled_frequencies_are_not_covered(tmp_path):
    export(tiny("llama"), "hf_llama", tmp_path / "m")
    rope = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}
    set_config(tmp_path / "m", lambda config: config.update(rope_parameters=rope))
    with pytest.raises(NotCovered, match=r"rope_parameters\.rope_type: given 'llama3'; allowed: default$"):
        open_folder(tmp_path / "m")


def test_a_mamba3_checkpoint_needs_its_definition(tmp_path):
    export(tiny("mamba3"), {"type": "mamba_ssm", "definition": "heavy_tail"}, tmp_path / "m")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="with the setting definition: softplus"):
        open_folder(tmp_path / "m")


def test_a_folder_of_something_else(tmp_path):
    assert open_folder(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "never_seen"}')
    assert open_folder(tmp_path) is None


def test_a_pytorch_file_is_read_like_safetensors(folder):
    want = dict(load_published(recognised(folder)).named_parameters())
    as_pytorch(folder)
    found = load_published(recognised(folder))
    assert all(torch.equal(want[name], value) for name, value in found.named_parameters())


def test_tables_of_angles_are_left_out(tmp_path):
    export(tiny("llama"), "hf_llama", tmp_path / "m")
    (tmp_path / "m" / "manifest.json").unlink()
    change(tmp_path / "m", lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    load_published(recognised(tmp_path / "m"))


def test_pieces_are_the_whole(folder, monkeypatch):
    want = dict(load_published(recognised(folder)).named_parameters())
    monkeypatch.setattr(files, "PIECE_BYTES", 200)
    found = load_published(recognised(folder))
    assert all(torch.equal(want[name], value) for name, value in found.named_parameters())


@pytest.mark.parametrize(
    ("name", "config", "params"),
    [
        ("mamba2-2.7b", {"d_model": 2560, "n_layer": 64, "ssm_cfg": {"layer": "Mamba2"}}, 2_702_599_680),
        ("mamba2attn-2.7b", {"d_model": 2560, "n_layer": 64, "ssm_cfg": {"layer": "Mamba2"},
                             "attn_layer_idx": [9, 18, 27, 36, 45, 56],
                             "attn_cfg": {"causal": True, "d_conv": 4, "head_dim": 128, "num_heads": 30,
                                          "out_proj_bias": False, "qkv_proj_bias": False, "rotary_emb_dim": 64}},
         2_697_590_880),
        ("mamba2-130m", {"d_model": 768, "n_layer": 24, "ssm_cfg": {"layer": "Mamba2"}}, 128_989_632),
    ],
)  # fmt: skip
def test_released_models_have_their_number_of_parameters(name, config, params, tmp_path):
    """Settings as in the released config.json."""
    from lcprobe.models.parts import model_cost

    common = {"d_intermediate": 0, "vocab_size": 50277, "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": True,
              "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 16, "tie_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({**common, **config}))
    (tmp_path / "pytorch_model.bin").touch()
    assert model_cost(recognised(tmp_path).model, 2048).params == params
