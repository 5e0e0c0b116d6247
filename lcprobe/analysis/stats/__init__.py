"""Statistics on plain numbers: nothing here knows a model, a task or a record.

    student_t           quantiles of Student's t
    effective_samples   effective sample size (n_eff) of clustered trials, degrees of freedom of a variance
    estimates           a value or a proportion with its 95 % interval
    intervals           Wilson's interval, also for clusters
    binomial            exact tail and range of a binomial
    bootstrap           cluster bootstrap with the expanded percentile interval
    exact_tests         sign-flip and permutation tests, Holm's correction
    differences         intervals of paired differences (Tango) and of ratios (Fieller)
    training_seeds      interval of a difference between groups of training seeds (Welch)
    censored_line       a line through values of which some are only known to be larger: slope over training lengths
    distance_bins       accuracy in half octaves of distance
    fall_fit            where accuracy falls with distance: the fit behind the effective reach
    exponential_fit     how fast accuracy decays with distance: the fit behind the half-life
    power               smallest differences that a grid can detect

To add a statistic, write a function of arrays in a module here, with its source and a test against an outside oracle,
and call it from a finding; see `lcprobe.analysis.findings` for how its result reaches the report.
"""
