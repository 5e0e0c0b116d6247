"""Mutants of the ops with a state or a window: ssd, linear_recurrence, causal_conv1d, gated_linear_attention, and of
what all ops share."""

from validation.mutants.mutant import faults

SCANS = (
    *faults(
        "ssd/triton_fwd.py",
        ("xs = tl.where((own == last)[:, None], xs, 0.0).to(xs.dtype)", "xs = xs"),
        ("weight = s * tl.exp(total - decay)", "weight = s"),
        ("carried = tl.where(last == before, state * tl.exp(total), 0.0)", "carried = state * tl.exp(total)"),
        ("state * tl.exp(total), 0.0)", "state, 0.0)"),
        ("seen = i[:, None] >= m[None, :]", "seen = i[:, None] > m[None, :]"),
        ("seen = seen & ((chunk * Q + m)[None, :] >= own[:, None])", "seen = seen"),
        ("out = tl.exp(decay)[:, None] * out", "out = out"),
        ("m = begin + tl.arange(0, TOKENS)", "m = tl.arange(0, TOKENS)"),
        (
            "scores += dot(cs, tl.trans(bs), INTERPRET, PRECISION)",
            "scores = dot(cs, tl.trans(bs), INTERPRET, PRECISION)",
        ),
        (
            "out = add_dot_state(out, cs, state, INTERPRET, PRECISION)",
            "out = add_dot_state(out * 0.0, cs, state, INTERPRET, PRECISION)",
        ),
        ("n = column + tl.arange(0, BN)\n            bs", "n = tl.arange(0, BN)\n            bs"),
        ("tl.where(s < dt_min, dt_min,", "tl.where(s < dt_min, 0.0,"),
        ("out += tl.load(D + head) * tl.where(", "out += tl.where("),
    ),
    *faults(
        "ssd/triton_bwd.py",
        (
            "group, split = tl.program_id(1) // SPLITS, tl.program_id(1) % SPLITS\n    i, p = ",
            "group, split = tl.program_id(1) // SPLITS, 0\n    i, p = ",
        ),
        ("        total += tl.where(seen, dot(d, tl.trans(xs)", "        total = tl.where(seen, dot(d, tl.trans(xs)"),
        ("total = add_dot_state(total, (us", "total = add_dot_state(total * 0.0, (us"),
        (
            "        there = (i * 0 + inner) < R  # (q,)\n        here = inside & there[:, None]",
            "        there = (i * 0) < R  # (q,)\n        here = inside & there[:, None]",
        ),
        (
            "kept = ((p < P) & (p * 0 + inner < R))[:, None]",
            "kept = (p < P)[:, None]",
            "what another group's states bring is multiplied by rows of u that are masked to 0",
        ),
        ("per = -(-r // splits)", "per = r // splits"),
        ("if split == 0:", "if split >= 0:"),
        ("dlog += tl.cumsum(sent, 0, reverse=True)", "dlog += tl.cumsum(sent, 0)"),
        ("m = begin + tl.arange(0, ROWS)", "m = tl.arange(0, ROWS)"),
        ("seen = seen & (t[None, :] >= own_m[:, None])", "seen = seen"),
        ("met += tl.sum(tl.sum(state * dstate, 1), 0)", "met = tl.sum(tl.sum(state * dstate, 1), 0)"),
        ("dlog += tl.where(last == before, tl.exp(total), 0.0) * met", "dlog += 0.0 * met"),
        (
            "tl.where(i[:, None] < i[None, :], written[:, None], 0.0)",
            "tl.where(i[:, None] <= i[None, :], written[:, None], 0.0)",
        ),
        ("draw = dstep * tl.sigmoid(v)", "draw = dstep"),
        ("dstate = dstate * kept + dot(", "dstate = dstate + dot("),
        (
            "read = add_dot_state(read, cs, state, INTERPRET, PRECISION)",
            "read += dot(cs, state.to(cs.dtype), INTERPRET, PRECISION)",
        ),
    ),
    *faults(
        "triton_tools.py",
        (
            "(total + dot(a, low, INTERPRET, PRECISION)) + dot(a, high, INTERPRET, PRECISION)",
            "total + dot(a, high, INTERPRET, PRECISION)",
        ),
        (
            "low = (state - high.to(tl.float32)).to(tl.bfloat16)",
            "low = (high.to(tl.float32) - state).to(tl.bfloat16)",
        ),
        ('if PRECISION == "tf32x3":', 'if PRECISION == "tf32x4":'),
        (
            "small = tl.dot(_tf32(a - high_a), high_b) + tl.dot(high_a, _tf32(b - high_b))",
            "small = tl.dot(high_a, _tf32(b - high_b))",
        ),
    ),
    *faults(
        "packed.py",
        ("if ends != (0, total):", "if ends[1] != total:"),
        ("falls = (cu_seqlens.diff() < 1)", "falls = (cu_seqlens.diff() < 0)"),
    ),
    *faults(
        "linear_recurrence/triton_scan.py",
        ("reset = a2 < 0.0", "reset = a2 < -2.0"),
        ("return tl.where(reset | (a1 < 0.0), -1.0, a1 * a2)", "return tl.where(reset, -1.0, a1 * a2)"),
        ("tl.where(reset, b2, a2 * b1 + b2)", "tl.where(reset, b2, b1 + b2)"),
        ("gone = parts - 1 - part if REVERSE else part", "gone = parts - part if REVERSE else part"),
        ("shift = 1 if REVERSE else 0", "shift = 0"),
        ("later = _decays(log_tile, own_starts, at + a_l, t + 1,", "later = _decays(log_tile, own_starts, at, t,"),
        (
            "before = tl.load(h + place - D, mask=mask & (t > 0)[:, None]",
            "before = tl.load(h + place, mask=mask & (t > 0)[:, None]",
        ),
        ("        state = _last(out, BT)\n    if part", "        state = _last(u, BT)\n    if part"),
    ),
    *faults(
        "causal_conv1d/triton_fwd.py",
        ("seen = live & (t >= back)", "seen = live & (t > back)"),
        ("before = (t < back) & live & (own == 0)", "before = (t < back) & live"),
        ("(row * (WIDTH - 1) + WIDTH - 1 - back + t)", "(row * (WIDTH - 1) + WIDTH - 2 - back + t)"),
        ("z = z * tl.sigmoid(z)", "z = tl.sigmoid(z)"),
    ),
    *faults(
        "causal_conv1d/triton_bwd.py",
        ("dz = dz * s * (1.0 + z * (1.0 - s))", "dz = dz * s * (1.0 + z * s)"),
        ("mine = tl.where(live & (t < first + OWN), dz, 0.0)", "mine = tl.where(live, dz, 0.0)"),
        ("a2 = a2 + tl.where(d2 == d0, w2 * dz, 0.0)", "a2 = a2 + w2 * dz"),
        ("OWN: tl.constexpr = STEPS - WIDTH + 1", "OWN: tl.constexpr = STEPS - WIDTH + 2"),
    ),
    *faults(
        "gated_linear_attention/cpu.py",
        ("resets = (x.w == 0).all(-1)", "resets = (x.w == 0).any(-1)"),
        ("read = after if inclusive else carried & ~(resets & (x.q == 0).all(-1))", "read = after"),
        ("w = across[:, :, 0, 0] * across[:, :, 1, 0]", "w = across[:, :, 1, 0]"),
        (".copy_(diagonal.mT)", ".copy_(diagonal.mT * 0.0)"),
        ("moves.diagonal(dim1=1, dim2=2).add_(kept)", "moves.diagonal(dim1=1, dim2=2)"),
        ("dvalues[:, :, 0] += done.scores", "dvalues[:, :, 0] -= done.scores"),
        ("drow = (drow * w).add_((ddiagonal * cols).sum(2))", "drow = drow * w"),
        ("dcols.addcmul_(ddiagonal, q)", "dcols.addcmul_(ddiagonal, q, value=0.5)"),
        ('final = final.masked_fill(after[:, -1, :, None, None], float("nan"))', "final = final"),
    ),
)
