"""Published models as targets of a probe: from an address or a folder to a source of weights, and a config with the
tokenizer, BOS rule and training length that are known for them."""

from dataclasses import replace
from pathlib import Path

from lcprobe.config import Config, parse
from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.files import SAFE_NAME
from lcprobe.models.checkpoints.contract import NotCovered
from lcprobe.models.checkpoints.files import stored_tensors, weight_files
from lcprobe.models.checkpoints.hub import Hub, download, hub_address
from lcprobe.models.checkpoints.known import CheckpointFacts, facts_about, known, stated_length
from lcprobe.models.checkpoints.load import PublishedFolder, check_tensors, open_folder, read_config_json, recognised
from lcprobe.probing.config import PublishedModel, ServerConfig
from lcprobe.probing.engines.servers import SERVERS
from lcprobe.studies.evaluation.published_sources import NativeCheckpoint, ServedModel, TransformersCheckpoint
from lcprobe.studies.evaluation.sources import Source
from lcprobe.tasks.text.tokenizer import load_tokenizer
from lcprobe.training.checkpoint import CONFIG

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "rwkv_vocab_*.txt")


def is_published(folder: Path) -> bool:
    """Whether a folder has a published checkpoint: weights, and no config.yaml as train.py writes it."""
    ours = (folder / CONFIG).is_file() or (folder / "study.yaml").is_file() or (folder / "checkpoints").is_dir()
    return not ours and bool(weight_files(folder))


def published_model(given: PublishedModel, server: ServerConfig) -> tuple[str, Source, Config]:
    """Name, source and config of a published model. server: `probe.server`, for one that a server has.

    Raises ConfigError for an unknown address, a training length that nobody states and a tokenizer that does not fit,
    CheckpointError for files that are missing, damaged or of a model that no engine here runs.
    """
    kind, _, url = given.address.partition(":")
    if kind in SERVERS:
        return _served(given, kind, url, server)
    hub = hub_address(given.address)
    if hub is None:
        folder = Path(given.address)
        if not folder.is_dir() and not (folder.is_file() and weight_files(folder)):
            raise ConfigError("address", given.address, "a folder, a .pth file, hf:ORG/NAME, openai:URL or vllm:URL")
    else:
        pinned = known().get(hub.name, CheckpointFacts()).revision
        folder = download(Hub(hub.name, hub.revision or pinned))
    source = _source(folder, given, hub)
    name = given.name or _name(given.address if hub is None else hub.name)
    return name, source, _config(name, _tokenizer_in(name, folder, source), source, given.address)


def _tokenizer_in(name: str, path: Path, source: Source) -> str:
    """The folder with a model's own tokenizer. Raises ConfigError where it is needed, and not there."""
    folder = path if path.is_dir() else path.parent
    facts = source.published
    known_elsewhere = facts is not None and facts.tokenizer is not None
    if not known_elsewhere and not any(next(folder.glob(kind), None) for kind in TOKENIZER_FILES):
        allowed = f"{', '.join(TOKENIZER_FILES)} in the folder, or tokenizer in study.models or lcprobe.yaml"
        raise ConfigError(f"{name}: tokenizer", f"none in {folder}", allowed)
    return str(folder)


def _served(given: PublishedModel, kind: str, url: str, server: ServerConfig) -> tuple[str, Source, Config]:
    """A model on a server. What it is given anew goes before what is known of its reference."""
    name = given.name or server.model or f"{kind}-server"
    name = name if SAFE_NAME.fullmatch(name) else _name(name)
    reference, facts = None, CheckpointFacts()
    if server.reference is not None:
        own = replace(given, address=server.reference)
        _, reference, config = published_model(own, server)
        facts, tokenizer, bos = reference.published or facts, config.data.tokenizer, config.data.bos
    else:
        facts = _with_settings(facts, given)
        tokenizer, bos = facts.tokenizer, facts.bos
        if tokenizer is None:
            allowed = "probe.server.reference, or tokenizer in study.models"
            raise ConfigError(f"{name}: tokenizer", "not known", allowed)
    loaded = load_tokenizer(tokenizer, bos)
    path = Path(url) if reference is None else reference.path
    source = ServedModel(path, kind, url, server, loaded, facts, reference)
    return name, source, _config(name, tokenizer, source, given.address)


def _with_settings(facts: CheckpointFacts, given: PublishedModel) -> CheckpointFacts:
    """What is known of a model, with what the configuration says of it on top."""
    if given.context_length is not None:
        facts = replace(facts, context_length=given.context_length, context_length_from="the configuration")
    return replace(
        facts,
        tokenizer=given.tokenizer or facts.tokenizer,
        bos=given.bos or facts.bos,
        chat=facts.chat if given.chat is None else given.chat,
        settings=facts.settings if given.settings is None else given.settings,
    )


def _source(folder: Path, given: PublishedModel, hub: Hub | None) -> Source:
    beside = folder if folder.is_dir() else folder.parent
    facts = _with_settings(facts_about(beside, hub.name if hub else None), given)
    found = None if given.engine == "transformers" else _native(folder, facts, given.engine == "native")
    if found is not None:
        return NativeCheckpoint(folder, found, _with_length(facts, stated_length(found.config_json)))
    from lcprobe.probing.engines.transformers_folder import empty_model

    config_json = read_config_json(folder)
    if not config_json:
        raise CheckpointError(f"{folder}: no config.json; allowed: a checkpoint with its config.json")
    empty_model(folder)  # raises where it cannot be run
    return TransformersCheckpoint(folder, config_json, _with_length(facts, stated_length(config_json)))


def _native(folder: Path, facts: CheckpointFacts, required: bool) -> PublishedFolder | None:
    """The checkpoint in a format of ours, with the tensors that it needs; None where transformers has to run it."""
    if required:
        found = recognised(folder, facts.settings)
    else:
        try:
            found = open_folder(folder, facts.settings)
        except NotCovered:
            found = None
    if found is not None:  # before another model is probed
        check_tensors(found, stored_tensors(list(found.files)))
    return found


def _with_length(facts: CheckpointFacts, stated: tuple[int, str] | None) -> CheckpointFacts:
    if facts.context_length is not None or stated is None:
        return facts
    return replace(facts, context_length=stated[0], context_length_from=stated[1])


def _name(address: str) -> str:
    """The last part of an address, as a name that a file can have."""
    name = "".join(c if c.isalnum() or c in "._+-" else "_" for c in Path(address).name).lstrip("._+-")[:100]
    return name if SAFE_NAME.fullmatch(name) else "model"


def _config(name: str, own_tokenizer: str, source: Source, address: str) -> Config:
    """What corresponds to a run's config: how it reads, and its training length. own_tokenizer: where nothing else is
    known."""
    facts = source.published
    assert facts is not None, "published models have facts"
    if facts.context_length is None:
        allowed = f"'study.models=[{{address: {address}, context_length: N}}]', or lcprobe.yaml beside the weights"
        raise ConfigError(f"{name}: training length", "not known", allowed)
    tokenizer = facts.tokenizer or own_tokenizer
    data = {"tokenizer": tokenizer} | ({} if facts.bos is None else {"bos": facts.bos})
    length = facts.context_length
    train = {"context_length": length, "batch_tokens": length, "tokens": length}
    config = parse({"study": {"run": name}, "train": train, "data": data})
    if isinstance(source, NativeCheckpoint):
        config = replace(config, model=source.folder.model)
    own, rows = load_tokenizer(tokenizer, facts.bos).vocab_size, source.vocab_size
    if rows is not None and own > rows:
        given = f"{tokenizer} with ids up to {own - 1}"
        raise ConfigError(f"{name}: tokenizer", given, f"one that fits the vocabulary of {rows} tokens")
    return config
