"""From records to statements: statistics, figures, tables and the report. Knows nothing of models or Lightning."""
