"""The plan of a probe before there is anything to probe: runs that are not trained, and published models that are not
here. Haystacks are of common words in place of the corpus."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcprobe.config import Config, parse
from lcprobe.models.checkpoints.hub import hub_address
from lcprobe.models.checkpoints.known import known
from lcprobe.models.config import ModelConfig
from lcprobe.probing.config import PublishedModel
from lcprobe.probing.units import Plan
from lcprobe.schema import build
from lcprobe.studies.evaluation.costs.read_tokens import prompts_of
from lcprobe.studies.evaluation.costs.shape_only import ShapeOnly
from lcprobe.studies.evaluation.costs.tables import Work
from lcprobe.studies.evaluation.readers import plans_over_words, reader_key
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.evaluation.variants import Variant, variants_of
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.planning.text_fits import COUNTED_WITH, counted_here
from lcprobe.tasks.text.templates import PromptTemplate

OWN_TEMPLATE = PromptTemplate("chat", "", "")
"""Stands for the chat template of a model that was trained to follow one: it is in its tokenizer's files."""


def planned_runs(mapping: Mapping[str, Any]) -> list[ProbeTarget]:
    """The runs of a study's config, as they would be trained. Asks no network. Raises ConfigError as `make_plan`."""
    targets = []
    for run in make_plan(mapping, fetch=False).runs:
        config, note = counted_here(replace(run.config, model=run.matched.config))
        targets.append(ProbeTarget(run.name, ShapeOnly(run.folder, config.model, note=note), config))
    return targets


def known_shape(given: PublishedModel) -> ProbeTarget | None:
    """A published model by its shape in known.yaml, without network; None where that has none."""
    hub = hub_address(given.address)
    facts = None if hub is None else known().get(hub.name)
    if hub is None or facts is None or not facts.model:
        return None
    length = given.context_length or facts.context_length
    assert length is not None, "a test checks the facts of known shapes"
    name = given.name or Path(hub.name).name
    train = {"context_length": length, "batch_tokens": length, "tokens": length}
    config = parse({"study": {"run": name}, "train": train, "data": {"tokenizer": COUNTED_WITH}})
    model = build(ModelConfig, facts.model, "model")
    own = OWN_TEMPLATE if facts.chat else None
    return ProbeTarget(name, ShapeOnly(Path(given.address), model, facts), replace(config, model=model), own)


def plan_untrained(targets: list[ProbeTarget], config: Config) -> tuple[list[Variant], Plan, Work, list[str]]:
    """Variants, the units of the first reader, what each variant reads, and notes. Raises as `variants_of` and
    `plans_over_words`."""
    variants, notes = variants_of(targets, config.pe, config.compat, config.probe.templates)
    lengths = sorted({target.config.train.context_length for target in targets})
    readers = plans_over_words(variants, config, lengths)
    read = {key: prompts_of(plan, tasks, config.probe) for key, (tasks, plan) in readers.items()}
    work: Work = {}
    for variant in variants:
        limit, prompts = variant.max_length, read[reader_key(variant)]
        readable = [one for one in prompts if limit is None or one.length <= limit]
        if readable:
            work[variant.name] = variant, readable
        if len(readable) < len(prompts):
            notes.append(f"{variant.name} reads at most {limit} tokens, where its positions end")
    plan = next(iter(readers.values()))[1]
    notes += plan.notes
    sources = [target.source for target in targets if isinstance(target.source, ShapeOnly)]
    notes += dict.fromkeys(source.note for source in sources if source.note)
    shapes = [t for t in targets if isinstance(t.source, ShapeOnly) and t.source.published is not None]
    for target in shapes:
        facts = target.source.published
        assert facts is not None
        if facts.model_from:
            notes.append(f"{target.name}: {facts.model_from}")
    if shapes:
        names = ", ".join(target.name for target in shapes)
        tuned = [target.name for target in shapes if target.template == OWN_TEMPLATE]
        if tuned and any(variant.template == OWN_TEMPLATE for variant in variants):
            notes.append(f"with a chat template of their own (known.yaml), without its tokens: {', '.join(tuned)}")
        notes.append(f"from known.yaml, without their files: {names}; cells are counted with the shipped tokenizer")
    return variants, plan, work, notes
