"""The Python API of notebooks, exposed by `import lcprobe`: load studies, runs and checkpoints, generate, probe,
draw.

A new public function or class is one entry of `EXPORTS` in lcprobe/__init__.py and a section of
docs/reference/api.md.
"""
