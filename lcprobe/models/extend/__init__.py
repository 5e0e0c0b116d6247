"""Extensions: changes to a trained model at evaluation, by the name used in configs (`evaluate.py RUN
pe.extend=yarn`); those that are `trainable` can also be part of a model in training (`train.extend`).

An extension is a class with `Config` and `apply(model, context)`, which changes a freshly loaded model in place; the
checkpoint is not changed. Adding one takes a subclass of `contract.Extension` with its Config (a frozen dataclass
with a docstring under each field, which `--help` prints), in the file of its family here or in a new one, and one
line in EXTENSIONS below. The contract tests (tests/models/extend/test_contract.py) read this registry;
tests/toys/extension.py is a complete example. An extension also needs its equation in
validation/oracles/extensions.py, against which it is tested.
"""

from lcprobe.choices import Registry

EXTENSIONS = Registry(
    "lcprobe.models.extend.contract:Extension",
    {
        # Mamba2 layers
        "dt_scale": "lcprobe.models.extend.recurrent:DtScale",
        "a_scale": "lcprobe.models.extend.recurrent:AScale",
        "stuffed": "lcprobe.models.extend.recurrent:Stuffed",
        "state_window": "lcprobe.models.extend.recurrent:StateWindow",
        "decimamba": "lcprobe.models.extend.tokens:DeciMamba",
        "longmamba": "lcprobe.models.extend.tokens:LongMamba",
        # any model
        "chunk_select": "lcprobe.models.extend.select:ChunkSelect",
        # attention layers
        "pi": "lcprobe.models.extend.rotary:PI",
        "ntk": "lcprobe.models.extend.rotary:NTK",
        "ntk_dynamic": "lcprobe.models.extend.rotary:DynamicNTK",
        "ntk_by_parts": "lcprobe.models.extend.rotary:ByParts",
        "llama3": "lcprobe.models.extend.rotary:Llama3",
        "yarn": "lcprobe.models.extend.rotary:YaRN",
        "resonance": "lcprobe.models.extend.rotary:Resonance",
        "drop": "lcprobe.models.extend.rotary:Drop",
        "longrope": "lcprobe.models.extend.longrope:LongRoPE",
        "self_extend": "lcprobe.models.extend.reread:SelfExtend",
        "rerope": "lcprobe.models.extend.reread:ReRoPE",
        "leaky_rerope": "lcprobe.models.extend.reread:LeakyReRoPE",
        "dca": "lcprobe.models.extend.reread:DualChunk",
        "lm_infinite": "lcprobe.models.extend.windows:LMInfinite",
        "streaming": "lcprobe.models.extend.windows:Streaming",
        "window": "lcprobe.models.extend.windows:Window",
        "temperature": "lcprobe.models.extend.softmax:PostHocTemperature",
        "logn": "lcprobe.models.extend.softmax:PostHocLogN",
    },
)
