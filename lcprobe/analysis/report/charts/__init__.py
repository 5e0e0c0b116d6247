"""The charts of the report, one module per subject, drawn as altair charts.

A chart is a function `(results: Results) -> Iterator[tuple[Picture, alt.TopLevelMixin]]` that yields nothing where
there is nothing to draw. To add one, write the function here, take colours, axes and layers from `grammar`, and
register it with one line in `report.figures.CHARTS`; a chapter of `report.page` that lists its name shows it.
"""
