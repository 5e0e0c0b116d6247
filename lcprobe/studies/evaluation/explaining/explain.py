"""`lcprobe explain`: why somebody's number for a model is not ours."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lcprobe.analysis.accounts import Claim, Decision, Scores, decide, decimals, whole_number_fits, without
from lcprobe.analysis.stats.binomial import interval_of_share
from lcprobe.config import Config
from lcprobe.errors import ConfigError, EpisodeError, listed, require, shown, unknown_name
from lcprobe.files import write_json
from lcprobe.merging import Settings
from lcprobe.probing.explain.conditions import Condition, Situation, conditions, pairs
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.probing.explain.measure import Bench, Measured, NotMeasured
from lcprobe.probing.explain.outputs import Expected, OutputFacts, contradictions, facts_of_outputs, read_outputs
from lcprobe.probing.explain.prompts import CHARACTERS, WORDS, Subject
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.probing.explain.wrapping import TEMPLATES, WRAPPERS, frame_of, template_names
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.evaluation.engines import continuations_of, device
from lcprobe.studies.evaluation.evaluate_study import resolve_targets
from lcprobe.studies.evaluation.explaining.words import output_sentences, verdict_sentence
from lcprobe.studies.evaluation.jobs.reading_progress import ReadingProgress
from lcprobe.studies.evaluation.prompts import templates_of
from lcprobe.studies.evaluation.readers import probed_materials
from lcprobe.studies.evaluation.targets import Named, ProbeTarget
from lcprobe.studies.evaluation.variants import load_variant, variants_of
from lcprobe.tasks.episode import Formats
from lcprobe.tasks.presets import TaskChoice, choose_task
from lcprobe.tasks.text.tokenizer import load_tokenizer

CHAT = "chat"
"""The name of a model's own chat template."""
OURS = Protocol()
MAX_NAMED = 8
"""Changes that account and are shown."""
MAX_OTHERS = 5
"""Changes that do not account and are shown all the same."""


@dataclass(frozen=True)
class Explanation:
    """Everything that was found. measured: by condition, one result for each length; left_out: those that cannot be
    measured here, and why; two: pairs of conditions that would fit where no single one accounts;
    ruled_out: by their outputs, and why."""

    decision: Decision
    ours: list[Measured]
    measured: Mapping[str, list[Measured]]
    conditions: Mapping[str, Condition]
    left_out: Mapping[str, str]
    two: Sequence[str] = ()
    outputs: OutputFacts | None = None
    ruled_out: Mapping[str, str] = field(default_factory=dict)


def explain_number(given: Named, wanted: ExplainConfig, settings: Settings) -> None:
    """Measure, decide, print a table and a sentence, and write everything to `wanted.out`. given: a folder, or a
    published model's address.

    Raises ConfigError for a folder of several models, an unknown task or name; EpisodeError for a length at which the
    task does not exist; DataError for files that are not what they should be.
    """
    _check_files(wanted)
    outputs = None if wanted.outputs is None else read_outputs(Path(wanted.outputs))
    targets, config, _ = resolve_targets([given], settings, None)
    if len(targets) > 1:
        raise ConfigError("command line", shown(given), f"one run: {listed(t.name for t in targets)}")
    subject = subject_of(targets[0], config, wanted)
    variants, _ = variants_of(targets, config.pe, config.compat)
    probe = config.probe
    require("probe.context_parallel", probe.context_parallel, probe.context_parallel == 1, "1 for lcprobe explain")
    loaded, checkpoint = load_variant(variants[-1], device(), probe=probe)
    progress, number = ReadingProgress(), itertools.count(1)
    continuer = continuations_of(loaded, probe, progress.watch)
    bos = subject.tokenizer.bos_id

    def continuations(prompts: Any, steps: Any) -> list[list[int]]:
        progress.what = f"{checkpoint.name}, {subject.name}, measurement {next(number)}"
        return continuer.greedy(prompts, steps, lambda _, ids: ids[-1] == bos)

    own = templates_of(targets[0], ["auto"])[0]
    chat = any(not template.is_none for template in own)  # a model that was tuned on chats is measured in one
    usual = Protocol(template=CHAT if chat else "none")
    facts = None
    if outputs is not None:
        facts = facts_of_outputs(outputs, subject.tokenizer, wanted.tokenizers, subject.templates)
    found = explain(Bench(continuations, subject, wanted.our_n), wanted, usual, facts)
    document = document_of(found, wanted, subject)
    if wanted.out is not None:
        write_json(Path(wanted.out), {"model": checkpoint.name, "checkpoint": checkpoint.digest, **document})
    print_rows(document["table"], f"{checkpoint.name}, {subject.name}: their number and ours")
    say(*document["notes"], document["verdict"])


def explain(
    bench: Bench, wanted: ExplainConfig, usual: Protocol = OURS, facts: OutputFacts | None = None
) -> Explanation:
    """The measurements and the decision, on a bench for the task. The conditions are measured only where our number
    is not compatible with theirs, and two at once only where no single one accounts. usual: how we measure the model,
    where they do not say. facts: of their outputs, which may rule changes out. Raises EpisodeError for a length
    at which our number does not exist."""
    base = replace(usual, **wanted.described)
    claims = [Claim(value, wanted.n or wanted.our_n) for value in wanted.numbers]
    ours = _measure(bench, wanted, {"ours": base})
    if isinstance(ours["ours"], str):
        raise EpisodeError("length", wanted.length, f"a length at which our number exists ({ours['ours']})")
    own = ours["ours"]
    at_ours = [_scores(result, True) for result in own]
    decision = decide(claims, at_ours, {}, wanted.alpha)
    if decision.verdict == "noise":
        return Explanation(decision, own, {}, {}, {}, (), facts)
    given = frozenset(wanted.described)
    answers = max(result.answers for result in own)
    situation = Situation(base, bench.subject, given, answers, wanted.tokenizers, wanted.prompts)
    tried = conditions(situation, wanted.causes)
    results = _measure(bench, wanted, {c.name: c.protocol for c in tried})
    decision = _decision(claims, at_ours, results, tried, base, wanted.alpha)
    ruled_out: dict[str, str] = {}
    if facts is not None:
        ruled_out = {
            c.name: reasons[0]
            for c in tried
            if isinstance(measured := results[c.name], list)
            and (reasons := contradictions(facts, _expected(c.protocol, measured[0], bench, wanted, facts)))
        }
        ours_too = bool(contradictions(facts, _expected(base, own[0], bench, wanted, facts)))
        decision = without(decision, ruled_out, ours_too)
    two: list[str] = []
    if decision.verdict == "none":  # of so many pairs one may fit by chance: a hint and no verdict
        both = pairs(situation, tried)
        together = _measure(bench, wanted, {c.name: c.protocol for c in both})
        two = [a.name for a in _decision(claims, at_ours, together, both, base, wanted.alpha).named]
    return Explanation(
        decision,
        own,
        {name: r for name, r in results.items() if not isinstance(r, str)},
        {c.name: c for c in tried},
        {name: r for name, r in results.items() if isinstance(r, str)},
        two,
        facts,
        ruled_out,
    )


def subject_of(target: ProbeTarget, config: Config, wanted: ExplainConfig) -> Subject:
    """The task in its format, over the text that the model is probed on. Raises ConfigError for an unknown task or
    level."""
    given = wanted.task
    choice = config.probe.tasks[given] if isinstance(given, str) and given in config.probe.tasks else None
    name = given if isinstance(given, str) else str(given.get("type")) if isinstance(given, Mapping) else ""
    choice = choice or choose_task(given, "task")
    formats = _formats(choice, wanted)
    materials = probed_materials(target, config)
    task = choice.create(materials)
    for factor in ("haystack", "key", "value"):
        level = getattr(formats, factor)
        if getattr(wanted, factor) is not None and level not in task.axes.levels(factor):
            raise unknown_name(factor, level, task.axes.levels(factor))
    templates = TEMPLATES if target.template is None else {CHAT: frame_of(target.template), **TEMPLATES}
    names = template_names(templates)
    if wanted.template is not None and wanted.template not in names:
        raise unknown_name("template", wanted.template, names)
    return Subject(name, task, task.axes.fitted(formats), materials, templates)


def document_of(found: Explanation, wanted: ExplainConfig, subject: Subject) -> dict[str, Any]:
    """Everything as plain values: the table, notes, verdict, and every measurement."""
    accounts = {account.name: account for account in found.decision.accounts}
    shown = [a.name for a in found.decision.named][:MAX_NAMED]
    shown += [a.name for a in found.decision.accounts if not a.accounts][: MAX_OTHERS if not shown else 2]
    table = []
    for i, (length, value) in enumerate(zip(wanted.lengths, wanted.numbers, strict=True)):
        n = wanted.n or wanted.our_n
        low, high = interval_of_share(value, n)
        table.append(_row(length, "theirs", value, low, high, n if wanted.n else None, None, None, None))
        table.append(_measured_row(length, "ours", found.ours[i], found.decision.ours.p, None))
        for name in shown:
            account = accounts[name]
            share = account.share if account.accounts else None
            table.append(_measured_row(length, name, found.measured[name][i], account.p, share))
    notes = _notes(found, wanted)
    says = {name: condition.says for name, condition in found.conditions.items()}
    readings = {name: condition.protocol.reading for name, condition in found.conditions.items()}
    return {
        "task": subject.name,
        "formats": str(subject.formats),
        "settings": {k: v for k, v in asdict(wanted).items() if k != "out"},
        "table": table,
        "notes": notes,
        "verdict": verdict_sentence(found.decision, says, readings, wanted, found.outputs is not None),
        "kind": found.decision.verdict,
        "changes tried": found.decision.tried,
        "something else": found.decision.rest,
        "two at once": list(found.two),
        "named": [asdict(account) for account in found.decision.named],
        "tried": {
            name: {
                "numbers": [float(r.scores.mean()) for r in results],
                "prompt tokens": [r.tokens for r in results],
                "p": accounts[name].p if name in accounts else None,
                "moves ours": accounts[name].moves if name in accounts else None,
                "log likelihood": accounts[name].likelihood if name in accounts else None,
            }
            for name, results in found.measured.items()
        },
        "not tried": dict(found.left_out),
        "ruled out by their outputs": dict(found.ruled_out),
    }


def _notes(found: Explanation, wanted: ExplainConfig) -> list[str]:
    notes = []
    for value in wanted.numbers:
        if wanted.n and not whole_number_fits(value, wanted.n, wanted.answers, decimals(value)):
            what = f"{wanted.n} samples" + (f" of {wanted.answers} answers" if wanted.answers > 1 else "")
            notes.append(f"{value:g} is no mean of {what}: n or answers differ, or samples are missing")
    if not wanted.n:
        notes.append(f"n is not given: theirs is taken to be of {wanted.our_n} samples, as ours")
    for reason in dict.fromkeys(found.left_out.values()):
        names = ", ".join(name for name, own in found.left_out.items() if own == reason)
        notes.append(f"not tried: {names} ({reason})")
    if found.two:
        notes.append(
            f"two changes at once would fit, as one of many pairs may by chance: {listed(found.two[:3], '; ')}"
        )
    if found.outputs is not None:
        notes += output_sentences(found.outputs, wanted)
    return notes


def _measure(
    bench: Bench, wanted: ExplainConfig, protocols: Mapping[str, Protocol]
) -> dict[str, list[Measured] | str]:
    """By name, the results at every length, or why there is none at one of them."""
    results: dict[str, list[Measured] | str] = {}
    by_length = [bench.measure(list(protocols.values()), length) for length in wanted.lengths]
    for name, protocol in protocols.items():
        measured = [at[protocol] for at in by_length]
        reason = next((m.reason for m in measured if isinstance(m, NotMeasured)), None)
        results[name] = [m for m in measured if isinstance(m, Measured)] if reason is None else reason
    return results


def _decision(
    claims: list[Claim],
    ours: list[Scores],
    results: Mapping[str, list[Measured] | str],
    tried: list[Condition],
    base: Protocol,
    alpha: float,
) -> Decision:
    changed = {}
    for condition in tried:
        result = results[condition.name]
        if not isinstance(result, str):
            same = condition.protocol.samples == base.samples
            changed[condition.name] = [_scores(measured, same) for measured in result]
    return decide(claims, ours, changed, alpha)


def _expected(
    protocol: Protocol, measured: Measured, bench: Bench, wanted: ExplainConfig, facts: OutputFacts
) -> Expected:
    """What their file would be like under a protocol. Prompts from elsewhere have needles and haystacks of their
    own."""
    value, begins = wanted.numbers[0], protocol.bos
    if begins is None:
        begins = 0 if bench.subject.tokenizer.bos_id is None else 1
    ours = protocol.samples == "ours" and bench.subject.task.axes.depth
    haystacks = protocol.haystacks or (bench.subject.formats.haystack,)
    return Expected(
        protocol,
        facts.reproduced(value, decimals(value)),
        measured.tokens,
        0 if facts.begin > 0.5 else begins,
        sum(protocol.depths or (0.5,)) / max(1, len(protocol.depths)) if ours else None,
        sum(name == "noise" for name in haystacks) / len(haystacks) if ours else None,
    )


def _scores(measured: Measured, paired: bool) -> Scores:
    return Scores(measured.scores, measured.answers, paired)


def _check_files(wanted: ExplainConfig) -> None:
    """Raises ConfigError for tokenizers and files that are none, and an unknown wrapper."""
    if wanted.wrapper is not None and wanted.wrapper not in ("none", *WRAPPERS):
        raise unknown_name("wrapper", wanted.wrapper, ("none", *WRAPPERS))
    for name in wanted.tokenizers:
        load_tokenizer(name)
    if wanted.counted not in (None, "", WORDS, CHARACTERS):
        load_tokenizer(wanted.counted)
    files = {"outputs": [wanted.outputs], "prompts": wanted.prompts}
    files["samples"] = [wanted.samples] if wanted.samples not in ("ours", "lm-eval") else []
    for key, names in files.items():
        for name in names:
            if name is not None and not os.path.isfile(name):  # unlike Path's, False for a name that no file can have
                more = "ours, lm-eval or " if key == "samples" else ""
                raise ConfigError(key, name, f"{more}an existing file of JSON lines")


def _formats(choice: TaskChoice, wanted: ExplainConfig) -> Formats:
    fixed = choice.formats
    return Formats(
        wanted.haystack or fixed.get("haystack", "corpus"),
        wanted.key or fixed.get("key", "words"),
        wanted.value or fixed.get("value", "numbers"),
    )


def _measured_row(length: int, name: str, measured: Measured, p: float, share: float | None) -> dict[str, Any]:
    scores = Scores(measured.scores, measured.answers)
    low, high = scores.bounds
    return _row(length, name, scores.value, low, high, len(measured.scores), measured.tokens, p, share)


def _row(
    length: int,
    name: str,
    value: float,
    low: float,
    high: float,
    n: int | None,
    tokens: float | None,
    p: float | None,
    share: float | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"length": length, "number": name, "value": round(value, 4)}
    row |= {"low": round(low, 4), "high": round(high, 4), "n": n}
    return row | {
        "prompt tokens": None if tokens is None else round(tokens, 1),
        "p": None if p is None else round(p, 4),
        "share": None if share is None else round(share, 3),
    }
