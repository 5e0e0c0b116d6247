"""Changes to a trained model at evaluation, by the name used in configs: `evaluate.py RUN pe.extend=yarn pe.factor=4`.

An extension is a class with `Config` and `apply(model, around)`, which changes a freshly loaded model in place; the checkpoint
stays as it is. A new one is a class and a line here.
"""

EXTENSIONS: dict[str, str] = {}
