"""What every figure of the page means: its formula in words, and how sure it is."""

from pipeline.report.page.markup import element, text

NOTATION = (
    "R(i, j) is the accuracy on stream task j after stage i; R(0, j) is that of the base model. H(i, h) is the same for held-out task h. "
    "Stage j trains task j; S stages are done. Accuracies are percent of the samples asked, differences are percentage points."
)
FILES = (
    "In full precision beside this page: scores.csv (every score), summary.csv (every figure of every run), matrix_*.csv (stage by task), "
    "paired.csv (every comparison on the same samples), comparison.csv and differences.csv (several arms), and the pictures as PNG."
)
METRICS = {
    "average accuracy": "The mean over all tasks, held-out and stream alike, of the last model's accuracy.",
    "held-out accuracy": "The mean over the held-out tasks, which no stage trains: mean of H(S, h).",
    "stream accuracy": "The mean over all tasks of the stream, also those not trained yet: mean of R(S, j).",
    "own task, after its stage": "How well each task is learned: mean of R(j, j), of the model that goes on from stage j.",
    "own task, before the merge": "The same of the tuned model, before the merge.",
    "learning that remains": "The mean of R(S, j) − R(0, j): what the last model has gained on the base, over the tasks trained so far.",
    "forgetting, stream": (
        "For each earlier task its best accuracy since its own stage, minus its accuracy now; the mean over the tasks before the last "
        "(Chaudhry et al. 2018). Negative where tasks are now at their best."
    ),
    "forgetting, held-out": "The mean of H(0, h) − H(S, h): what the held-out tasks have lost since the base model.",
    "intransigence": (
        "How far each task stays behind joint training on it and all tasks before it, right after its own stage; the mean over the stages "
        "(Chaudhry et al. 2018). Only where a joint run stands beside."
    ),
    "frontier": "Each stage's trade: the accuracy on its new task against the mean of the held-out tasks, before and after the merge.",
    "before, after": "The tuned model of a stage before its merge; the merged model, from which the next stage goes on.",
}
STATISTICS = {
    "± over seeds": (
        "Half of the 95 % interval of a mean over n seeds, by Student's t: t(n − 1) · s / √n, with s the standard deviation over them. "
        "With few seeds it is wide, as it should be: t(2) is 4.30."
    ),
    "± of one seed": (
        "1.96 standard errors over the samples: √(Σ se²) / number of tasks, where se is s / √n of a task's n samples. "
        "Differences and measures over stages have none; how far another training would differ is not in it."
    ),
    "difference [low, high], over seeds": (
        "The mean over the seeds of the difference within a seed, both arms from the same base; interval as above."
    ),
    "difference [low, high], same questions": (
        "Both models answer the same samples; the mean of the differences, with the 2.5th and 97.5th percentile of 10,000 bootstrap "
        "draws of the samples. Of several seeds each sample's score is first averaged over the seeds: the interval then speaks of the "
        "questions, for the models at hand, and not of new seeds."
    ),
    "p": (
        "How often a difference this large would come about if both models were equally good. For one seed's right or wrong answers it is "
        "McNemar's exact test on the samples on which the models differ; otherwise (several seeds, means over tasks, partial scores) signs "
        "are flipped at random, sample by sample. Adjusted: multiplied by Holm's rule for the number of comparisons in the table. A "
        "difference is coloured where the adjusted p is below 0.05."
    ),
    "better, worse": "How many samples score higher after than before, and how many lower.",
}


def glossary() -> str:
    """The notation, every metric, every statistic, and where all of it is in full precision."""
    return "".join(
        (
            element("p", text(NOTATION), class_="lead"),
            element("h3", "Figures"),
            definitions(METRICS),
            element("h3", "How sure they are"),
            definitions(STATISTICS),
            element("p", text(FILES), class_="note"),
        )
    )


def definitions(words: dict[str, str]) -> str:
    """Terms with what they mean."""
    return element(
        "dl", *(element("div", element("dt", text(term)), element("dd", text(said))) for term, said in words.items()), class_="terms"
    )
