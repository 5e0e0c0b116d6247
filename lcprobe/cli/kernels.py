"""`lcprobe kernels`: the report of lcprobe_kernels, or what the models of a config use."""

from lcprobe.cli.arguments import no_folders, read_arguments
from lcprobe.errors import ConfigError

OPTIONS = ("--backend", "--device", "--dtype")
ALLOWED = "[OP ...] [--backend NAME], or CONFIG.yaml ... [key=value ...]; both [--device NAME] [--dtype NAME]"

KERNELS = """\
lcprobe kernels: print this machine, the backends that work on it, and what each op runs here; with a config, which
backend each op of its models takes in which layers, why, and why not those that auto tries first.
python -m lcprobe_kernels is the same command.

usage: lcprobe kernels [OP ...] [--backend NAME] [--device NAME] [--dtype NAME]
       lcprobe kernels CONFIG.yaml ... [key=value ...] [--device NAME] [--dtype NAME]

  OP            each feature of these ops: attention, ssd ...
  --backend     what each op runs under this backend, a value of kernels.backend; without it, under auto
  --device      cpu, cuda, or a GPU that need not be here: sm_80, sm_90 ...; without it, as here
  --dtype       fp32, bf16, fp16, fp64; without it, fp32 and bf16, or that of the config's train.precision

examples
  lcprobe kernels configs/study/matched-130m.yaml --device sm_90
  lcprobe kernels attention --device sm_80 --dtype bf16
"""


def kernels(words: list[str]) -> int:
    """words: of the command line. Returns the exit code. Raises ConfigError for words that do not belong together."""
    options: dict[str, str] = {}
    rest, following = [], ""
    for word in words:
        if following:
            options[following], following = word, ""
        elif word in OPTIONS and word not in options:
            following = word
        elif word.startswith("-"):
            raise ConfigError("command line", " ".join(words), ALLOWED)
        else:
            rest.append(word)
    if following:
        raise ConfigError("command line", " ".join(words), ALLOWED)
    if not any("=" in word or word.endswith((".yaml", ".yml")) for word in rest):  # as the package, without torch
        from lcprobe_kernels.__main__ import main as report_kernels

        return report_kernels([*rest, *(part for pair in options.items() for part in pair)])
    if "--backend" in options:
        raise ConfigError("command line", "--backend with a config", "kernels.backend=NAME")
    given = read_arguments(rest)
    no_folders(given, "a .yaml file or key=value")
    from lcprobe.config import load, parse

    mapping = load(given.files, given.overrides)
    parse(mapping)  # every mistake that needs no torch is reported before torch is imported
    from lcprobe.studies.training.kernel_report import print_kernels

    print_kernels(mapping, options.get("--device"), options.get("--dtype"))
    return 0
