"""The fixed paragraphs of the report: what is shown, and how its numbers are computed."""

from lcprobe.analysis.stats.fall_fit import FIT_RESAMPLES

TRAINING_LENGTH_TEXT = (
    "Models of one architecture that were trained at several lengths, probed on the same samples at every length. "
    "Effective length against training length on log2 scales: a slope of 1 says that the training length is the "
    "ceiling, in proportion; a slope of 0 that reach is fixed in tokens. A verdict needs the whole interval of the "
    "slope near 1 or 0. The curves over length / training length collapse onto one where the training length is the "
    "ceiling, those over length where reach is fixed.",
)
LENGTH_TEXT = (
    "Exact match over all depths at each length. A mean is given only where every planned cell of the slice has all "
    "of its samples. Accuracy is not corrected for chance; the chance level is drawn where a task has one.",
)
POSITION_TEXT = (
    "Declared contrasts, paired by sample: primacy is the first stratum of depth minus the middle (strata centred "
    "in .25 to .75), recency the last minus the middle, and lost in the middle is both: recency alone also raises "
    "the mean of the ends. A middle whose centre is above its neighbours (W) is not called lost. All are in skill, "
    "which is accuracy without what the control wrong_key shows to be named by order alone; look-up tasks without "
    "that control are not tested. They are tested only where accuracy is neither at the floor nor at the ceiling.",
)
DISTANCE_TEXT = (
    "The same answers against the number of tokens between the target value and its query, at each length. Where "
    "reach is what limits a model, it falls at the same distance at every length. Effective reach: the distance at "
    "which accuracy over all lengths has fallen half-way from its short-distance level to the floor.",
)
CONTEXT_TEXT = (
    "Plain held-out text, read once from the first token to the longest length: the loss of every token, and the "
    "recurrent or cached state. A window of text is a cluster; differences are paired inside it. Windows cross "
    "document boundaries, at every position alike.",
    "Remembrance is the total-variation distance between the predictions with and without the first tokens of a "
    "text (Buitrago & Gu 2025). It shows that early tokens still affect a prediction, not that they are used well: "
    "retrieval is what the tasks measure.",
)
FORMAT_TEXT = (
    "Formats differ in the number of tokens per answer, so that exact match falls with answer length even where "
    "every token is equally likely: the table of all cells also has token accuracy and log-likelihood.",
)
MODEL_TEXT = (
    "Paired by sample: every model is given the same questions about the same text. A row over all lengths of a zone "
    "comes before those of its single lengths. Differences of single cells are "
    "in contrasts.csv. With one training seed per model a difference is one of these runs, not of architectures. "
    "Models with different tokenizers are paired only where probe.equal_length is text.",
)
EXTENSION_TEXT = (
    "Trained models changed at evaluation, without further training, against the same weights as trained: the same "
    "questions about the same text, paired by sample. At factor 1 a method is the model as trained, bit for bit.",
)
BIAS_TEXT = (
    "Encodings that add to every score a bias that depends on distance alone (ALiBi, T5, KERPLE, Sandwich, FIRE up "
    "to its threshold), as trained: where a curve is far below 0, a head hardly attends to that distance, whatever "
    "the content.",
)
TRAINING_TEXT = ("Each batch is new, so that the training loss is a held-out loss.",)
WRONG_ANSWERS_TEXT = ("A random sample of the wrong answers; the same records give the same sample.",)
CELLS_TEXT = (
    "All measurements, controls included; the same as cells.csv. Bounds are 95 % Wilson intervals, at the effective "
    "sample size (n_eff) where one sample has several questions.",
)
METHODS_TEXT = (
    "A trial is one query with status ok. Exact match: every token of the answer is the model's top-1 prediction "
    "given the correct tokens before it, which is equivalent to greedy decoding.",
    "Samples are common random numbers: sample i has the same key, value, haystack and question in every cell and "
    "model. They are the clusters of every interval and the pairs of every test.",
    "Proportions: Wilson intervals; where a sample is queried several times (a mean over cells, several questions), "
    "the score interval of the samples' totals, between Wilson's for as many trials as samples and for all trials. "
    "Differences: the score interval of the samples' differences, Tango's (1998) where a sample is one trial. "
    "Ratios: every value that the test of the difference does not reject (Fieller). Training seeds: Welch's "
    "interval, with seeds varying at least as much as the trials of one seed do by themselves. Reach "
    f"and half-life: cluster bootstrap over samples, {FIT_RESAMPLES} resamples, expanded percentiles (Hesterberg "
    "2015). All intervals are 95 %. In simulated studies with proportions from .02 to .98 their coverage is: "
    "proportions, differences and ratios of 250 samples or more 94 to 98 %, of fewer 91 to 100 %, the extremes near "
    "0 and 1; training seeds 95 to 100 %, the more the less seeds vary beyond their trials; reach and half-life 92 "
    "to 100 % (python -m validation coverage).",
    "Tests of differences are paired by sample: the score test that gives the interval (p < 0.05 if and only if it "
    "excludes zero), McNemar's where a sample is one trial; of places in the context and of effective lengths they "
    "are on skill (delta method). Where models are compared and have several training "
    "seeds, "
    "the p of a test is the larger of that over samples and that over seeds (Welch); with one seed a finding is "
    "the p of a test is the larger of that over samples and that over seeds (Welch); with one seed a finding is "
    "about these runs. Families fixed in advance: lengths, places, formats, limit of effective length and reach of a "
    "model on a task; gates and effective length of a model on a task; models on a task over all lengths up to the "
    "training length and past it, single lengths behind that, and single cells behind their length; training lengths "
    "on a task; effects of depth between training lengths at equal tokens, and at equal multiples; effective length "
    "against training length; extensions on a task; plain text of a model.",
    "One error rate for the report: its 5 % is shared by models against each other, each model by itself, what each "
    "model can do, and effective length against training length (3 to 1 to 1 to 3, of those that a report has), in "
    "these by families, in these by claims; what stands behind a claim has its share once that is found (sequential "
    "rejection, Holm's correction at every level). A finding (resolved) has p < 0.05 in the report. At most 5 % of "
    "reports hold any false finding (python -m validation null_reports). Gates and every step of an effective length "
    "are claims, too. Whether curves of training lengths collapse, and a verdict of no ceiling, are statements of "
    "their own 95 % intervals, each by itself.",
    "Skill: (accuracy − guessed) / (1 − guessed), where guessed is the rate at which the value is named although "
    "the key of the question is absent (wrong_key), at the same depths and samples; for tasks without that control, "
    "stated chance.",
    "Effective length: the longest length up to which, one after the other from the base on, every length is "
    "found, in the report, to have at least 0.85 of the skill of every length up to the training length. The "
    'base is the best of these; its own skill has to be above 0. It is a lower bound ("at least") where the next '
    "length is not a finding to be below. Reference length: the training length, or the nearest tested length "
    "below; past it begins where trained distances end, if that is earlier. Floor: a mean below 0.05 or, where "
    "there is a chance level, no depth above chance. Ceiling: a mean above 0.95.",
    "Task acquired: with the needle directly before the question exact match is above the midpoint between the score "
    "without retrieval and 1, a finding as all the following. Key look-up partly acquired: accuracy is above the "
    "wrong_key control, paired by sample, and above stated chance; acquired: also the skill is above 0.5. Without "
    "that control, where a task has it and a value has rivals, look-up is not tested and nothing is claimed about "
    "the context.",
    "Reach: least-squares fit of b + c / (1 + (d / r) ** s) with s from gentle to a step; the interval is a cluster "
    "bootstrap, and never narrower than the gap between the neighbouring cells of the grid. That there is a fall is "
    "tested by the correlation of hits and log distance at equal length.",
    "Half-life: least-squares fit of floor + a x 2 ** (-d / h) with the same bootstrap; given only where there is a "
    "reach and an exponential describes the curve (chi-square over bins of distance, p > 0.001).",
)
