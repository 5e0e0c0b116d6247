"""The report: summary, tables, figures and the self-contained HTML page."""
