"""gated_linear_attention's adapter to flash-linear-attention: its arguments, its packs, its registered op, and fla's own
results."""

import ast
import inspect
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.gated_linear_attention import fla, gated_linear_attention, reference

from tests.kernels.gated_linear_attention_cases import draw_inputs, judged, ours
from tests.kernels.judge import outputs_and_gradients, relative_error, same
from tests.kernels.peer_signatures import SIGNATURES, as_published, published


def arguments(inputs, starts=None):
    names = ("q", "k", "v", "log_decay", "bonus", "beta", "erase", "a", "b")
    return [*(inputs.get(n) for n in names), inputs["q"].shape[3] ** -0.5, inputs.get("initial_state"), starts, None]


NAIVE = {  # form, per_head -> fla's function, its plain PyTorch counterpart, whether that wants heads before time
    ("plain", False): ("chunk_gla", "gla.naive:naive_recurrent_gla", False),
    ("plain", True): ("chunk_simple_gla", "simple_gla.naive:naive_recurrent_simple_gla", False),
    ("bonus", False): ("chunk_rwkv6", "rwkv6.recurrent_naive:naive_recurrent_rwkv6", True),
    ("beta", True): ("chunk_gated_delta_rule", "gated_delta_rule.naive:naive_recurrent_gated_delta_rule", False),
    ("beta", False): ("chunk_kda", "kda.naive:naive_recurrent_kda", False),
    ("erase", False): ("chunk_gdn2", "gdn2.naive:naive_recurrent_gdn2", False),
    ("ab", False): ("chunk_dplr_delta_rule", "generalized_delta_rule.dplr.naive:dplr_recurrence", True),
}
RENAMED = {"chunk_rwkv6": {"r": "q"}, "chunk_gla": {"g": "gk"}, "chunk_dplr_delta_rule": {"a": "alpha", "b": "beta"}}


@pytest.mark.parametrize(("form", "per_head"), list(NAIVE))
def test_flas_plain_pytorch_agrees_through_the_adapter(form, per_head):
    if find_spec("fla") is None or find_spec("einops") is None:
        pytest.skip("fla is not installed: pip install flash-linear-attention fla-core einops")
    name, naive, heads_first = NAIVE[form, per_head]
    inputs, _ = draw_inputs(form, (2, 13, 2, (4, 3)), 4, per_head=per_head)
    inputs = {k: v.float().cpu() for k, v in inputs.items()}
    call = fla.call_of(*arguments(inputs))
    assert call.name == name
    published(name).bind(**call.arguments)
    given = {
        RENAMED.get(name, {}).get(k, k): v for k, v in call.arguments.items() if k not in ("cu_seqlens", "scale")
    }
    if heads_first:
        given = {
            k: v.transpose(1, 2) if k in ("q", "k", "v", "w", "alpha", "beta", "gk") else v for k, v in given.items()
        }
    module, function = naive.split(":")
    o, state = getattr(import_module(f"fla.ops.{module}"), function)(**given)
    want, final = reference(**inputs)
    assert relative_error(o.transpose(1, 2) if heads_first else o, want) < 1e-5
    assert relative_error(state, final) < 1e-5


@pytest.mark.parametrize("first", [False, True])
def test_the_adapter_hands_packs_over_as_one_row_of_documents(first, monkeypatch):
    """A stand-in for fla that runs every document alone gives back what the pack gives."""
    inputs, starts = draw_inputs("ab", (3, 9, 2, (3, 4)), 5)
    starts[:, 0] = torch.tensor([first, False, True])

    def alone(q, k, v, a, b, gk, scale, initial_state, output_final_state, cu_seqlens):
        assert output_final_state
        ends, out, states = cu_seqlens.tolist(), [], []
        for i in range(len(ends) - 1):
            cut = {
                n: x[:, ends[i] : ends[i + 1]]
                for n, x in {"q": q, "k": k, "v": v, "a": a, "b": b, "log_decay": gk}.items()
            }
            o, s = reference(**cut, scale=scale, initial_state=initial_state[i : i + 1])
            out.append(o)
            states.append(s)
        return torch.cat(out, 1), torch.cat(states)

    one = as_published("chunk_dplr_delta_rule", alone)
    monkeypatch.setattr(fla, "import_module", lambda _: SimpleNamespace(chunk_dplr_delta_rule=one))
    want, final = reference(**inputs, starts=starts)
    o, state = fla.run(*arguments(inputs, starts))
    assert relative_error(o, want) < 1e-6  # the adapter hands decays and states over in float32
    assert relative_error(state, final) < 1e-6


def test_the_signatures_are_those_of_the_package():
    """Read without importing it, where the version is the one that they were copied from."""
    package = find_spec("fla")
    (named,) = [name for name in SIGNATURES if name.startswith("fla-core")]
    if package is None or f"fla-core {version('fla-core')}," not in named:
        pytest.skip(f"needs {named}")
    here = {}
    for file in Path(next(iter(package.submodule_search_locations or [])), "ops").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        defines = any(f"\ndef {name}(" in text for name in SIGNATURES[named])
        for node in ast.parse(text).body if defines else ():
            if isinstance(node, ast.FunctionDef) and node.name in SIGNATURES[named]:
                for argument in (*node.args.args, *([node.args.kwarg] if node.args.kwarg else [])):
                    argument.annotation = None
                here[node.name] = ast.unparse(node.args)
    assert here == SIGNATURES[named]


STAND_INS = {  # fla's functions by our definition, with gradients by autograd
    "chunk_gla": lambda q, k, v, g, **more: _defined(q, k, v, g, **more),
    "chunk_simple_gla": lambda q, k, v, g, **more: _defined(q, k, v, g[..., None], **more),
    "chunk_rwkv6": lambda r, k, v, w, u, **more: _defined(r, k, v, w, bonus=u, **more),
    "chunk_gated_delta_rule": lambda q, k, v, g, beta, **more: _defined(q, k, v, g[..., None], beta=beta, **more),
    "chunk_gdn2": lambda q, k, v, g, b, w, **more: _defined(q, k, v, g, erase=b, **more),
    "chunk_dplr_delta_rule": lambda q, k, v, a, b, gk, **more: _defined(q, k, v, gk, a=a, b=b, **more),
}


def _defined(q, k, v, g, scale, initial_state, output_final_state, cu_seqlens, **corrections):
    assert output_final_state
    starts = None
    if cu_seqlens is not None:
        assert len(q) == 1
        starts = torch.zeros(q.shape[:2], dtype=torch.bool)
        starts[0, cu_seqlens[:-1]] = True
        assert initial_state is None
    o, state = reference(q, k, v, g, scale=scale, initial_state=initial_state, starts=starts, **corrections)
    return o.to(v.dtype), state if cu_seqlens is None else state.expand(len(cu_seqlens) - 1, *state.shape[1:])


@pytest.fixture
def stands_in(monkeypatch):
    """fla takes every call, on a CPU too. Its functions do what torch.compile cannot trace."""
    api = {}
    for name, stand_in in STAND_INS.items():
        signature = inspect.signature(_defined).parameters
        known = [p for p in inspect.signature(stand_in).parameters if p != "more"]
        names = [
            *known,
            *(n for n in ("scale", "initial_state", "output_final_state", "cu_seqlens") if n in signature),
        ]
        scope = {"stand_in": stand_in}
        exec(f"def call({', '.join(names)}): return stand_in({', '.join(f'{n}={n}' for n in names)})", scope)
        api[name] = torch._dynamo.disable(as_published(name, scope["call"]))
    monkeypatch.setattr(fla, "import_module", lambda _: SimpleNamespace(**api))
    monkeypatch.setattr(backends, "_chosen", "fla")
    monkeypatch.setattr(backends, "_decided_once", lambda *_: "fla")


@pytest.mark.parametrize(("form", "per_head"), [("plain", True), ("bonus", False), ("erase", False), ("ab", False)])
def test_compiled_it_is_one_op_with_the_gradients_of_the_definition(form, per_head, stands_in):
    inputs, _ = draw_inputs(form, (2, 7, 2, (4, 3)), 4, per_head=per_head)
    inputs = {k: v.float() for k, v in inputs.items()}
    call = lambda i: gated_linear_attention(**i, return_state=True)  # noqa: E731
    want = outputs_and_gradients(lambda i: reference(**i), inputs, inputs, 1)
    same(outputs_and_gradients(call, inputs, inputs, 1), want, 1e-5)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    same(outputs_and_gradients(compiled, inputs, inputs, 1), want, 1e-5)


def test_compiled_with_documents_and_without_the_final_state(stands_in):
    inputs, starts = draw_inputs("beta", (2, 7, 2, (4, 3)), 4, per_head=True, with_state=False)
    inputs = {k: v.float() for k, v in inputs.items()}
    call = lambda i: gated_linear_attention(**i, starts=starts)[:1]  # noqa: E731
    want = outputs_and_gradients(lambda i: reference(**i, starts=starts)[:1], inputs, inputs, 1)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    same(outputs_and_gradients(compiled, inputs, inputs, 1), want, 1e-5)


def test_the_registered_op_is_right_for_torch_and_refuses_a_second_derivative(stands_in):
    inputs, starts = draw_inputs("beta", (1, 5, 2, (4, 3)), 4, per_head=True, with_state=False)
    inputs = {k: v.float().requires_grad_() for k, v in inputs.items()}
    given = [inputs.get(n) for n in ("q", "k", "v", "log_decay", "bonus", "beta", "erase", "a", "b", "initial_state")]
    op = torch.ops.lcprobe.gated_linear_attention_fla_fwd.default
    checked = torch.library.opcheck(op, (*given, 0.5, starts, None))
    assert set(checked.values()) == {"SUCCESS"}
    (dq,) = torch.autograd.grad(op(*given, 0.5, starts, None)[0].sum(), inputs["q"], create_graph=True)
    with pytest.raises(Exception, match="second derivative"):
        dq.sum().backward()


@pytest.mark.gpu
@pytest.mark.parametrize(("form", "per_head"), [*NAIVE, ("erase", True), ("ab", True), ("bonus", True)])
def test_flas_kernels_agree_on_a_gpu(form, per_head):
    if backends.missing("fla") is not None:
        pytest.skip(str(backends.missing("fla")))
    inputs, starts = draw_inputs(form, (2, 130, 2, (64, 64)), 4, "weak", per_head)
    rounded = {k: v.bfloat16() for k, v in inputs.items()}
    exact = judged(lambda i: reference(**i, starts=starts), {k: v.double() for k, v in rounded.items()}, 1)
    with backends.using("fla"):
        got = judged(ours(starts), rounded, 1)
    for name, value in exact.items():
        assert relative_error(got[name], value) < 3e-2, name
