"""What becomes a report: the question that it answers and the folder that is named after it, and the episodes that it
shows.

    question    what was asked of which models, and whether two reports ask the same
    places      the folder of a report: of the first question, the study's own
    tracking    what W&B gets: the report in a run of the study, and each model's values in its own
"""
