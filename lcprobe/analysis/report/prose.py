"""The fixed paragraphs of the report: what is shown, and how its numbers are made."""

from lcprobe.analysis.findings.reach import RESAMPLES

LENGTH_TEXT = (
    "Exact match over all depths at each length. A mean stands only where every planned cell of the slice holds all "
    "of its samples. Accuracy is not corrected for chance; the chance level is drawn where a task has one.",
)
PLACE_TEXT = (
    "Lost in the middle is a declared contrast: the mean of start and end minus the middle third, paired by sample. "
    "It is tested only where accuracy is neither at the floor nor at the ceiling. Primacy (start − middle) and "
    "recency (end − middle) stand apart, because recency alone also lifts the mean of the ends.",
)
DISTANCE_TEXT = (
    "The same answers against the number of tokens between the value and the place where it is asked for. Where reach "
    "is what limits a model, depth curves at all lengths collapse onto this one. Effective reach: the distance at "
    "which accuracy has come half of the way down from its short-distance level to the floor.",
)
CONTEXT_TEXT = (
    "Plain held-out text, read once from the first token to the longest length: the loss of every token, and the state "
    "that is carried. A window of text is a cluster; differences are paired inside it. Windows run over the ends of "
    "documents, at every position alike.",
    "Remembrance is the total-variation distance between the predictions with and without the first tokens of a text "
    "(Buitrago & Gu 2025). It says that old tokens still move a prediction, not that they are used well: retrieval is "
    "what the tasks measure.",
)
FORMAT_TEXT = (
    "Formats differ in how many tokens an answer has, so that exact match falls with answer length even where every "
    "token is as likely as before: the table of all cells has token accuracy and log-likelihood beside it.",
)
MODEL_TEXT = (
    "Paired by sample: every model is asked the same questions about the same text. Differences of single cells "
    "(McNemar) are in contrasts.csv.",
)
EXTENSION_TEXT = (
    "Trained models changed without training, at evaluation alone, against the same weights as trained: the same questions "
    "about the same text, paired by sample. At factor 1 a method is the model as trained, bit for bit.",
)
BIAS_TEXT = (
    "Encodings that add a number to every score by distance alone (ALiBi, T5, KERPLE, Sandwich, FIRE up to its threshold), as "
    "trained: where a line falls far below 0, a head has all but lost what stands there, whatever its content.",
)
TRAINING_TEXT = ("Each batch is new, so that the training loss is a held-out loss.",)
WRONG_TEXT = ("Drawn at random from the wrong answers, the same ones each time.",)
CELLS_TEXT = (
    "Everything that was measured, controls included; the same as cells.csv. Bounds are 95 % Wilson intervals, with "
    "the effective number of trials where one sample asks several questions.",
)
METHODS = (
    "A trial is one query with status ok. Exact match: every token of the answer is the model's first choice given "
    "the right tokens before it, which is what greedy decoding would print.",
    "Samples are common random numbers: sample i has the same key, value, haystack and question in every cell and "
    "model. They are the clusters of every interval and the pairs of every test.",
    "Shares: Wilson intervals; where a sample is asked several times (a mean over cells, several questions), with as many "
    "trials as its samples are worth. Differences: Tango's score interval (1998), with as many trials as the samples are "
    "worth. Ratios: every value that the test of the difference allows (Fieller). Training seeds: Welch's interval, seeds "
    "varying at least as much as the trials of one seed do by themselves. Reach and half-life: cluster bootstrap over samples, "
    f"{RESAMPLES} resamples, expanded percentiles (Hesterberg 2015). All intervals are 95 %. In simulated studies with "
    "shares from .02 to .98 they hold the truth this often: shares, differences and ratios of 250 samples or more in 94 to 98 %, "
    "of fewer in 91 to 100 %, the extremes near 0 and 1; training seeds in 95 to 100 %, the more the less seeds vary beyond "
    "their trials; reach and half-life in 92 to 100 % (python -m validation coverage).",
    "Differences: exact sign-flip test on the differences of samples, which is McNemar's exact test where a sample is "
    "one trial; for places in the context an exact test over every way of putting a sample's answers on its depths. "
    "p-values are adjusted by Holm inside families fixed in advance: lengths, positions and formats of a "
    "model and task; models on a task over depths; models on a task cell by cell; extensions "
    "of the models on a task. Resolved means p < 0.05 after Holm.",
    "Effective length: the longest length whose lower bound exceeds 0.85 x the model's own base, the base being the "
    "training length (or the nearest tested length below); at least, where no longer length lies below that by its upper "
    "bound. Floor: a mean below 0.05 or, where there is a chance "
    "level, no depth above chance. Ceiling: a mean above 0.95.",
    "Task acquired: with the needle directly before the question the lower bound exceeds the middle between what is "
    "scored without retrieval and 1. Key look-up acquired: the lower bound of skill exceeds 0.5; partly: accuracy is "
    "above chance.",
    "Reach: least-squares fit of b + c / (1 + (d / r) ** s) with s from gentle to a step; the interval is a cluster "
    "bootstrap, and never narrower than the gap between the neighbouring cells of the grid.",
    "Half-life: least-squares fit of floor + a x 2 ** (-d / h) with the same bootstrap; given only where there is a reach and "
    "an exponential describes the curve (chi-square over bins of distance, p > 0.001).",
)
