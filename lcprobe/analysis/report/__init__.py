"""The report: summary, tables, figures and the self-contained HTML page.

    write            writes report.html, figures/* and tables/*.csv
    summary, flags   sentences of the summary; wording has their phrases
    page             chapters of the page, from study_tables, finding_tables, cell_tables and prose
    figures          every figure by name, drawn by the modules of charts
    tables           every CSV file by name
    blocks           tables and sections as the template expects them

To add a chart, see `charts`. To add a CSV file, write a function `(results: Results) -> Rows` and register it in
`tables.TABLES`. To add sentences, write a function `(results: Results) -> Iterator[Sentence]` and register it under
its topic in `summary.TOPIC_SENTENCES`. To add a table or chapter to the page, list it in `page.sections`.
"""
