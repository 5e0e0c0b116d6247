"""Mutants of the ops with a state or a window: ssd, linear_recurrence, causal_conv1d, gated_linear_attention, and of
what all ops share."""

from validation.mutants.mutant import Mutant

FWD, BWD = "ssd/triton_fwd.py", "ssd/triton_bwd.py"
SCAN, CONV, CONV_BWD = (
    "linear_recurrence/triton_scan.py",
    "causal_conv1d/triton_fwd.py",
    "causal_conv1d/triton_bwd.py",
)
GLA, TOOLS, PACKED = "gated_linear_attention/cpu.py", "triton_tools.py", "packed.py"

SCANS = (
    Mutant(
        FWD, "weight = s * tl.where(own == last, tl.exp(total - decay), 0.0)", "weight = s * tl.exp(total - decay)"
    ),
    Mutant(FWD, "carried = tl.where(last == before, state * tl.exp(total), 0.0)", "carried = state * tl.exp(total)"),
    Mutant(FWD, "state * tl.exp(total), 0.0)", "state, 0.0)"),
    Mutant(FWD, "seen = (i[:, None] >= i[None, :])", "seen = (i[:, None] > i[None, :])"),
    Mutant(FWD, " & (own[:, None] == own[None, :])", ""),
    Mutant(FWD, "past = tl.exp(decay)[:, None] * past", "past = past"),
    Mutant(
        FWD,
        "scores += dot(cs, tl.trans(bs), INTERPRET, PRECISION)",
        "scores = dot(cs, tl.trans(bs), INTERPRET, PRECISION)",
    ),
    Mutant(
        FWD, "past += dot_state(cs, state, INTERPRET, PRECISION)", "past = dot_state(cs, state, INTERPRET, PRECISION)"
    ),
    Mutant(FWD, "n = column + tl.arange(0, BN)", "n = tl.arange(0, BN)"),
    Mutant(FWD, "tl.where(s < dt_min, dt_min,", "tl.where(s < dt_min, 0.0,"),
    Mutant(FWD, "out += tl.load(D + head) * xs.to(tl.float32)", "out += xs.to(tl.float32)"),
    Mutant(
        BWD,
        "group, split = tl.program_id(1) // SPLITS, tl.program_id(1) % SPLITS\n    i, p = ",
        "group, split = tl.program_id(1) // SPLITS, 0\n    i, p = ",
    ),
    Mutant(
        BWD,
        "        total += tl.where(seen, dot(d, tl.trans(xs)",
        "        total = tl.where(seen, dot(d, tl.trans(xs)",
    ),
    Mutant(BWD, "            total += dot_state((us", "            total = dot_state((us"),
    Mutant(
        BWD,
        "        there = (i * 0 + inner) < R  # (q,)\n        here = inside & there[:, None]",
        "        there = (i * 0) < R  # (q,)\n        here = inside & there[:, None]",
    ),
    Mutant(
        BWD,
        "kept = ((p < P) & (p * 0 + inner < R))[:, None]",
        "kept = (p < P)[:, None]",
        "what another group's states bring is multiplied by rows of u that are masked to 0",
    ),
    Mutant(BWD, "per = -(-r // splits)", "per = r // splits"),
    Mutant(BWD, "if split == 0:", "if split >= 0:"),
    Mutant(BWD, "dlog += tl.cumsum(sent, 0, reverse=True)", "dlog += tl.cumsum(sent, 0)"),
    Mutant(BWD, "met += tl.sum(tl.sum(state * dstate, 1), 0)", "met = tl.sum(tl.sum(state * dstate, 1), 0)"),
    Mutant(BWD, "dlog += tl.where(last == before, tl.exp(total), 0.0) * met", "dlog += 0.0 * met"),
    Mutant(
        BWD,
        "tl.where(i[:, None] < i[None, :], written[:, None], 0.0)",
        "tl.where(i[:, None] <= i[None, :], written[:, None], 0.0)",
    ),
    Mutant(BWD, "draw = dstep * tl.sigmoid(v)", "draw = dstep"),
    Mutant(BWD, "dstate = dstate * kept + dot(", "dstate = dstate + dot("),
    Mutant(
        BWD,
        "read += dot_state(cs, state, INTERPRET, PRECISION)",
        "read += dot(cs, state.to(cs.dtype), INTERPRET, PRECISION)",
    ),
    Mutant(
        TOOLS,
        "dot(a, high, INTERPRET, PRECISION) + dot(a, low, INTERPRET, PRECISION)",
        "dot(a, high, INTERPRET, PRECISION)",
    ),
    Mutant(
        TOOLS,
        "low = (state - high.to(tl.float32)).to(tl.bfloat16)",
        "low = (high.to(tl.float32) - state).to(tl.bfloat16)",
    ),
    Mutant(TOOLS, 'if PRECISION == "tf32x3":', 'if PRECISION == "tf32x4":'),
    Mutant(
        TOOLS,
        "small = tl.dot(_tf32(a - high_a), high_b) + tl.dot(high_a, _tf32(b - high_b))",
        "small = tl.dot(high_a, _tf32(b - high_b))",
    ),
    Mutant(PACKED, "if ends != (0, total):", "if ends[1] != total:"),
    Mutant(PACKED, "falls = (cu_seqlens.diff() < 1)", "falls = (cu_seqlens.diff() < 0)"),
    Mutant(SCAN, "reset = a2 < 0.0", "reset = a2 < -2.0"),
    Mutant(SCAN, "return tl.where(reset | (a1 < 0.0), -1.0, a1 * a2)", "return tl.where(reset, -1.0, a1 * a2)"),
    Mutant(SCAN, "tl.where(reset, b2, a2 * b1 + b2)", "tl.where(reset, b2, b1 + b2)"),
    Mutant(SCAN, "gone = parts - 1 - part if REVERSE else part", "gone = parts - part if REVERSE else part"),
    Mutant(SCAN, "shift = 1 if REVERSE else 0", "shift = 0"),
    Mutant(
        SCAN, "later = _decays(log_tile, own_starts, at + a_l, t + 1,", "later = _decays(log_tile, own_starts, at, t,"
    ),
    Mutant(
        SCAN,
        "before = tl.load(h + place - D, mask=mask & (t > 0)[:, None]",
        "before = tl.load(h + place, mask=mask & (t > 0)[:, None]",
    ),
    Mutant(SCAN, "        state = _last(out, BT)\n    if part", "        state = _last(u, BT)\n    if part"),
    Mutant(CONV, "seen = live & (t >= back)", "seen = live & (t > back)"),
    Mutant(CONV, "before = (t < back) & live & (own == 0)", "before = (t < back) & live"),
    Mutant(CONV, "(row * (WIDTH - 1) + WIDTH - 1 - back + t)", "(row * (WIDTH - 1) + WIDTH - 2 - back + t)"),
    Mutant(CONV, "z = z * tl.sigmoid(z)", "z = tl.sigmoid(z)"),
    Mutant(CONV_BWD, "dz = dz * s * (1.0 + z * (1.0 - s))", "dz = dz * s * (1.0 + z * s)"),
    Mutant(CONV_BWD, "mine = tl.where(live & (t < first + OWN), dz, 0.0)", "mine = tl.where(live, dz, 0.0)"),
    Mutant(CONV_BWD, "a2 = a2 + tl.where(d2 == d0, w2 * dz, 0.0)", "a2 = a2 + w2 * dz"),
    Mutant(CONV_BWD, "OWN: tl.constexpr = STEPS - WIDTH + 1", "OWN: tl.constexpr = STEPS - WIDTH + 2"),
    Mutant(GLA, "resets = (x.w == 0).all(-1)", "resets = (x.w == 0).any(-1)"),
    Mutant(GLA, "read = after if inclusive else carried & ~(resets & (x.q == 0).all(-1))", "read = after"),
    Mutant(GLA, 'final = final.masked_fill(after[:, -1, :, None, None], float("nan"))', "final = final"),
)
