"""Models of transformers under the probe: right scores from classes that continue rightly and from those that do not, and one line for what cannot be opened."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.files import digest_file
from lcprobe.models.checkpoints.files import stored_tensors
from lcprobe.models.state import tensors_of
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.engines.transformers import CachedState, PrefixState, TransformersModel
from lcprobe.probing.engines.transformers_folder import require_vocabulary, transformers_model
from lcprobe.probing.inference.continuation import Continuer
from validation.invariances.checks import VOCAB
from validation.invariances.peer_models import tiny

RIGHT = ("llama", "mamba2", "falcon_h1", "minimax")
"""falcon_h1 has a factor after its head, minimax states beside the layers of its cache."""
WRONG = {
    "mamba": "a chunk after a cache: ",
    "jamba": "a chunk after a cache: ",
    "recurrent_gemma": "it returns no cache",
    "rwkv": "must match the size",
    "xlstm": "xLSTMCache has no rows to pick",
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")

    def save(name, model=None):
        if not (root / name).exists():
            (tiny(name) if model is None else model).save_pretrained(root / name)
        return root / name

    return save


def draw(n, seed):
    return np.random.default_rng(seed).integers(0, VOCAB, n).tolist()


PAIRS = [(draw(n, n), draw(1 + n % 5, n + 1)) for n in (1, 3, 20, 33, 70)] + [(draw(33, 33), draw(6, 7))]


def expected(model, context, continuation):
    with torch.no_grad():
        logits = model(torch.tensor([context + continuation]), use_cache=False).logits[0].float()
    logs = logits.log_softmax(-1)[len(context) - 1 : -1]
    ids = torch.tensor(continuation)
    return logs.gather(-1, ids[:, None])[:, 0].numpy(), (logs.argmax(-1) == ids).tolist()


@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_likelihoods_are_those_of_full_forward_passes(folder_of, name):
    engine = transformers_model(folder_of(name), torch.float32, "cpu")
    assert engine.rereads == (name in WRONG)
    assert WRONG.get(name, "continues from its cache") in engine.note
    assert engine.finish is not None, "logits are made from hidden vectors"
    for (context, continuation), (likelihood, right) in zip(
        PAIRS, Continuer(engine, "cpu", 16, 400).likelihoods(PAIRS), strict=True
    ):
        values, hits = expected(engine.model, context, continuation)
        np.testing.assert_allclose(likelihood, values, atol=1e-4)
        assert right.tolist() == hits


def test_a_state_is_unchanged_by_what_continues_from_it(folder_of):
    engine = transformers_model(folder_of("falcon_h1"), torch.float32, "cpu")
    tokens = torch.tensor([draw(12, 0), draw(12, 1)])
    with torch.inference_mode():
        _, state = engine.hidden(tokens, state=engine.new_state(2))
        first, _ = engine.hidden(tokens[:, :3], state=state)
        engine.hidden(tokens[[1, 1, 0], 3:9], state=state.rows(torch.tensor([1, 1, 0])))
        again, _ = engine.hidden(tokens[:, :3], state=state)
    assert torch.equal(first, again)


def test_the_size_of_a_cache_is_that_of_its_tensors(folder_of):
    for name, per_row in (("llama", 2 * 2 * 12 * 2 * 8 * 4), ("mamba2", None)):
        engine = transformers_model(folder_of(name), torch.float32, "cpu")
        with torch.inference_mode():
            _, state = engine.hidden(torch.tensor([draw(12, 0), draw(12, 1)]), state=engine.new_state(2))
        size = sum(t.numel() * t.element_size() for t in tensors_of(state))
        assert size == 2 * per_row if per_row else size > 0
        assert tensors_of(engine.new_state(2)) == []


def test_what_rereads_reads_each_prompt_once_for_the_prompt_and_once_for_its_continuations(folder_of):
    engine = transformers_model(folder_of("jamba"), torch.float32, "cpu")
    Continuer(engine, "cpu", 4, 10**6).likelihoods([(draw(40, 0), draw(3, i)) for i in range(2)])
    assert engine.tokens_read == 40 + 2 * (40 + 3), "not once for every chunk of 4"


def test_half_precision_is_tested_in_float32_and_stays_as_it_is(folder_of):
    folder = folder_of("jamba")
    engine = transformers_model(folder, torch.bfloat16, "cpu")
    assert "a chunk after a cache: " in engine.note, "rounding would hide it"
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in engine.model.state_dict().items() if name in weights}
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in kept.items())
    assert sum(value.dtype == torch.bfloat16 for value in kept.values()) > len(kept) / 2
    hidden, _ = engine.hidden(torch.tensor([draw(8, 0)]), state=engine.new_state(1))
    logits = engine.logits(hidden)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float()), "products are not rounded to eight bits"


def test_a_class_whose_head_is_not_found_gives_its_own_logits(folder_of):
    model = tiny("llama")
    engine = transformers_model(folder_of("llama"), torch.float32, "cpu")
    engine._head = None
    assert not engine.find_head(torch.tensor([draw(8, 0)]), 1e-4)
    likelihood, _ = Continuer(engine, "cpu", 16, 400).likelihoods(PAIRS)[3]
    np.testing.assert_allclose(likelihood, expected(model, *PAIRS[3])[0], atol=1e-4)


def test_learned_positions_end_and_rope_that_grows_is_reread(folder_of):
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": VOCAB, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 50}
    table = transformers_model(
        folder_of("gpt2", GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))), torch.float32, "cpu"
    )
    assert (table.max_length, table.rereads) == (50, False)
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    config = LlamaConfig(**sizes, intermediate_size=16, max_position_embeddings=32, rope_parameters=rope)
    grows = transformers_model(folder_of("grows", LlamaForCausalLM(config)), torch.float32, "cpu")
    assert (grows.max_length, grows.rereads) == (None, True)
    assert "its RoPE, dynamic" in grows.note


def test_autocast_passes_on_what_the_model_says(folder_of):
    engine = transformers_model(folder_of("jamba"), torch.float32, "cpu")
    assert in_precision(engine, "bf16").rereads
    assert isinstance(engine.new_state(2), PrefixState)
    assert isinstance(transformers_model(folder_of("llama"), torch.float32, "cpu").new_state(2), CachedState)


class Attack:
    def __reduce__(self):
        return (print, ("this code must never run",))


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def changed(change):
    def apply(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def pickled(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Attack()}))


def as_pytorch(weights, folder, **how):
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin", **how)
    return folder / "pytorch_model.bin"


def flipped(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def altered_pytorch(folder):
    path = as_pytorch(load_file(folder / "model.safetensors"), folder)
    flipped(path, stored_tensors([path])[NORM].offset)


def altered_in_manifest(folder):
    files = {p.name: {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    flipped(folder / "model.safetensors", -1)


def altered_in_cache(folder):
    path = folder / "model.safetensors"
    (folder / "blobs").mkdir()
    blob = path.rename(folder / "blobs" / digest_file(path))
    path.symlink_to(blob)
    flipped(blob, -1)


def truncated_pytorch(folder):
    path = as_pytorch(load_file(folder / "model.safetensors"), folder)
    path.write_bytes(path.read_bytes()[:-100])


def config_with(**changes):
    def apply(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


NORM = "model.norm.weight"
FAULTS = {
    "no config": (lambda f: (f / "config.json").unlink(), ConfigError, "no config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), CheckpointError, "config.json: not a JSON file"),
    "type": (config_with(model_type="lama"), ConfigError, "did you mean 'llama'"),
    "no name": (config_with(model_type=["llama"]), ConfigError, "config.json: model_type: given ['llama']"),
    "code": (config_with(model_type="mine", auto_map={"AutoConfig": "x.Y"}), ConfigError, "never run"),
    "settings": (config_with(hidden_size="wide"), CheckpointError, "config.json: "),
    "truncated": (truncated, CheckpointError, "model.safetensors: not a whole safetensors file"),
    "truncated .bin": (truncated_pytorch, CheckpointError, "pytorch_model.bin: truncated"),
    "altered .bin": (altered_pytorch, CheckpointError, f"pytorch_model.bin: {NORM}: the bytes do not match"),
    "altered beside a manifest": (
        altered_in_manifest,
        CheckpointError,
        "model.safetensors does not match its digest",
    ),
    "altered in the cache": (altered_in_cache, CheckpointError, "model.safetensors: does not match its digest"),
    "not finite": (
        changed(lambda w: w[NORM].fill_(float("nan"))),
        CheckpointError,
        f"model.safetensors: {NORM}: numbers that are not finite",
    ),
    "missing": (changed(lambda w: w.pop(NORM)), CheckpointError, f"no tensor {NORM} in model.safetensors"),
    "shape": (
        changed(lambda w: w.update({NORM: torch.ones(7)})),
        CheckpointError,
        f"model.safetensors: {NORM} has shape [7]; allowed: [32]",
    ),
    "unexpected": (
        changed(lambda w: w.update(new=torch.ones(7))),
        CheckpointError,
        "model.safetensors: a tensor that the class does not have: new",
    ),
    "plain pickle": (pickled, CheckpointError, "pytorch_model.bin: not a file of tensors alone"),
    "old pickle": (
        lambda f: as_pytorch({NORM: Attack()}, f, _use_new_zipfile_serialization=False),
        CheckpointError,
        "pytorch_model.bin: refused: a pickle with code (",
    ),
    "pickle": (
        lambda f: as_pytorch({NORM: Attack()}, f),
        CheckpointError,
        "pytorch_model.bin: refused: a pickle with code (print)",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CheckpointError, "llama: "),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_opened_is_named_in_one_line(tmp_path, capsys, fault):
    folder = tmp_path / "llama"
    tiny("llama").save_pretrained(folder)
    capsys.readouterr()
    damage, error, text = FAULTS[fault]
    damage(folder)
    with pytest.raises(error) as raised:
        transformers_model(folder, torch.float32, "cpu")
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)
    sys.stderr.write(str(raised.value))
    assert "trust_remote_code" not in str(raised.value)
    assert "must never run" not in capsys.readouterr().out


def test_masks_of_other_types_strides_and_old_pickles_are_read(tmp_path):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=16, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 9, 9, dtype=torch.bool)  # as older files have it
    transposed = weights | {"embed_out.weight": weights["embed_out.weight"].T.contiguous().T}
    tokens = torch.tensor([draw(12, 0)])
    for old in (False, True):
        torch.save(transposed, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
        (tmp_path / "model.safetensors").unlink(missing_ok=True)
        engine = transformers_model(tmp_path, torch.float32, "cpu")
        assert torch.equal(engine.model(tokens).logits, model.eval()(tokens).logits)


def test_a_cache_whose_numbers_are_none_fails_the_test_and_such_logits_are_refused(folder_of, monkeypatch):
    read = TransformersModel.read

    def broken(self, tokens, cache, position, use_cache):
        hidden, after = read(self, tokens, cache, position, use_cache)
        return hidden * (float("nan") if cache is not None or everywhere else 1.0), after

    everywhere = False
    monkeypatch.setattr(TransformersModel, "read", broken)
    engine = transformers_model(folder_of("llama"), torch.float32, "cpu")
    assert engine.rereads
    assert "single tokens after a cache: nan off" in engine.note
    everywhere = True
    with pytest.raises(CheckpointError, match="logits with numbers that are not finite"):
        transformers_model(folder_of("llama"), torch.float32, "cpu")


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused(folder_of):
    engine = transformers_model(folder_of("llama"), torch.float32, "cpu")
    require_vocabulary("llama", VOCAB, engine)
    with pytest.raises(ConfigError, match=f"ids below {VOCAB}"):
        require_vocabulary("llama", VOCAB + 1, engine)


def test_layers_over_several_gpus_need_them(folder_of, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"lcprobe\[hf,split\]|at least 2 GPUs"):
        transformers_model(folder_of("llama"), torch.float32, "cpu", split=True)
