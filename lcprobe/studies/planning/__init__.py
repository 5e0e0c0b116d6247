"""From a config to runs: the grid's axes, what applies to each model, duplicates, costs, and checks before anything
is prepared."""
