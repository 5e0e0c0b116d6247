"""Changes to a trained model at evaluation, by the name used in configs: `evaluate.py RUN pe.extend=yarn pe.factor=4`.

An extension is a class with `Config` and `apply(model, around)`, which changes a freshly loaded model in place; the checkpoint
stays as it is. A new one is a class and a line here.
"""

EXTENSIONS: dict[str, str] = {
    # Mamba2 layers
    "dt_scale": "lcprobe.models.extend.recurrent:DtScale",
    "a_scale": "lcprobe.models.extend.recurrent:AScale",
    "stuffed": "lcprobe.models.extend.recurrent:Stuffed",
    "state_window": "lcprobe.models.extend.recurrent:StateWindow",
    "decimamba": "lcprobe.models.extend.tokens:DeciMamba",
    "longmamba": "lcprobe.models.extend.tokens:LongMamba",
}
