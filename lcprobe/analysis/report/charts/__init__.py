"""The charts of the report, one module per subject, drawn as matplotlib figures.

A chart is a function `(results: Results) -> Iterator[tuple[Picture, Figure]]` that yields nothing where there is
nothing to draw. To add one, write the function here, take colours and axes from `drawing`, and register it with one
line in `report.figures.CHARTS`; a section of `report.page` that lists its name shows it.
"""
