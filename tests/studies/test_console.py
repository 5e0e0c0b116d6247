"""Tables on the terminal."""

from lcprobe.studies.console import print_rows


def test_layouts_are_printed_as_they_are_written(capsys):
    print_rows([{"layout": "[mamba2 x 3, attention] x 2", "n": 1}], "models")
    assert "[mamba2 x 3, attention] x 2" in capsys.readouterr().out
