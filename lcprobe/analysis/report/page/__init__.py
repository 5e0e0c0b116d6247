"""The report's page: answer, pictures, evidence; and how much of it fits into one file."""
