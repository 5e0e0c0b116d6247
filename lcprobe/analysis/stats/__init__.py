"""Statistics on plain numbers: nothing here knows a model, a task or a record.

    student_t           quantiles of Student's t
    score_test          the score test of a mean of bounded values, and its interval: the rule behind the next four
    effective_samples   effective sample size (n_eff) of clustered trials
    estimates           a value or a proportion with its 95 % interval
    intervals           Wilson's interval, for clusters and means over cells; Newcombe's of different samples
    differences         paired differences, weighted contrasts (Tango, McNemar) and ratios (Fieller)
    multiplicity        Holm's correction
    binomial            exact tail and range of a binomial, and the exact test of two
    bootstrap           cluster bootstrap with the expanded percentile interval
    training_seeds      interval of a difference between groups of training seeds (Welch)
    censored_line       a line through values of which some are only known to be larger: slope over training lengths
    distance_bins       accuracy in half octaves of distance
    fall_fit            where accuracy falls with distance: the fit behind the effective reach
    exponential_fit     how fast accuracy decays with distance: the fit behind the half-life
    power               smallest differences that a grid can detect

To add a statistic, write a function of arrays in a module here, with its source and a test against an outside oracle,
and call it from a finding; see `lcprobe.analysis.findings` for how its result reaches the report.
"""
