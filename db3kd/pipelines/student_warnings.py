"""Warnings about students that learned nothing, or less than their answers allow."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from db3kd.answers.answers import Answers
from db3kd.arguments.images import are_equal
from db3kd.pipelines.distill_settings import of_default
from db3kd.planning.held_out import LEAST_HELD_OUT
from db3kd.report import wilson_interval
from db3kd.training.evaluation import predict_logits
from db3kd.wording import InputNoun, class_text, counted, held_out_noun, money

FEW_HELD_OUT = 100
"""With fewer held-out images, the interval of the agreement is wide: 8 percentage points and more
on both sides of 80 %."""

_SHOWN_CLASSES = 5

_SKEWED, _LEAST_AUGMENTED = 0.8, 100
"""The share of one class among the augmented images, and their number, from which a difference to
the images themselves is worth a warning."""

_SMALL_SHARE = 0.2
"""Share of the steps of full training below which a shorter training is worth a warning."""


def likely_causes(noun: InputNoun = "image") -> str:
    """Returns the likely causes of answers that hardly differ."""
    differing, parts = "preprocessing", "scale, mean and std, channel order, layout"
    if noun == "row":
        differing, parts = "encoding", "order of the columns, units, categories, filled values"
    return (
        f"{noun}s that are unlike those that the teacher was trained on; {differing} that differs "
        f"from the teacher's own ({parts}); wrong bounds of the values; or a teacher that gives "
        "this answer for every input"
    )


def student_warnings(
    answers: Answers,
    predicted: Tensor,
    class_names: Sequence[str] | None,
    noun: InputNoun = "image",
    decisions: Tensor | None = None,
    *,
    at_random: Tensor | None = None,
    pseudo_samples: bool = False,
) -> list[str]:
    """Returns warnings about a student that has learned nothing, or had nothing to learn.

    Always answering the teacher's most frequent class is at least as good as chance, so a student
    must be better than that, and by more than the uncertainty of its agreement. Images that proxies
    choose have other classes than the held-out ones, so only images that were drawn at random show
    how often a constant answer agrees.

    Args:
        answers: The teacher's answers.
        predicted: [n] int64, the student's classes of the held-out images.
        class_names: The names of the classes, or None.
        noun: What the warnings call an image.
        decisions: The teacher's classes of all images, by default those of the answers.
        at_random: The teacher's classes of the images that were drawn at random, by default of all.
        pseudo_samples: Whether the images are pseudo samples. Only the held-out ones are drawn at
            random.
    """
    found = []
    causes = likely_causes(noun)
    decisions = answers.clean.decisions if decisions is None else decisions
    if are_equal(decisions):
        found.append(
            f"The teacher put all {counted(len(decisions), noun)} in class "
            f"{class_text(int(decisions[0]), class_names)}, so a student can learn nothing useful "
            f"from them. Likely causes: {causes}."
        )
    held_out = answers.held_out.clean.decisions
    drawn = held_out if pseudo_samples else decisions if at_random is None else at_random
    # Few held-out images have a most frequent class by chance, so all of these determine it.
    counts = torch.bincount(drawn)
    constant = int(counts.max()) / int(counts.sum())
    matches = int((predicted == held_out).sum())
    low, high = wilson_interval(matches, len(held_out))
    if found or len(held_out) < LEAST_HELD_OUT or constant < low:
        return found
    what = held_out_noun(noun, pseudo_samples=pseudo_samples)
    usual = class_text(int(counts.argmax()), class_names)
    asked = f"the {counted(len(drawn), noun)} that were queried"
    if pseudo_samples:
        asked = "them"
    elif len(drawn) < len(decisions):
        asked = f"the {counted(len(drawn), f'queried {noun}')} that no proxy chose"
    verdict = "so the student has learned nothing useful."
    if matches > constant * len(held_out):
        verdict = (
            "which is within this interval, so the student may have learned nothing useful; on "
            f"more {noun}s, {MEASURE_AGREEMENT} tells, at a query for each."
        )
    found.append(
        f"The student agrees with the teacher on {matches:,} of {counted(len(held_out), what)} "
        f"(95 % interval {low:.1%} to {high:.1%}). Always answering with class {usual} would agree "
        f"on {constant:.1%} of {asked}, {verdict} Likely causes: {causes}; or too few queries or "
        "training steps."
    )
    return found


def absent_classes_warning(
    decisions: Tensor,
    classes: int,
    class_names: Sequence[str] | None,
    noun: InputNoun = "image",
    *,
    pseudo_samples: bool = False,
) -> str | None:
    """Returns a warning if the teacher put no image in some of its classes, or else None.

    Args:
        decisions: [n] int64, the teacher's classes of all images.
        classes: The number of its classes.
        class_names: Their names, or None.
        noun: What the warning calls an image.
        pseudo_samples: Whether the images are pseudo samples.
    """
    counts = torch.bincount(decisions, minlength=classes)
    absent = (counts == 0).nonzero().flatten().tolist()
    if not absent:
        return None
    names = ", ".join(class_text(number, class_names) for number in absent[:_SHOWN_CLASSES])
    more = ", …" if len(absent) > _SHOWN_CLASSES else ""
    advice = f"add {noun}s that are like these classes"
    if pseudo_samples:
        advice = (
            "start a run with a larger budget, which makes more pseudo samples, or with images "
            "(--data, or images= in Python)"
        )
    return (
        f"The teacher chose {len(absent):,} of {classes:,} classes ({names}{more}) for none of the "
        f"{counted(len(decisions), noun)}, so the student does not learn them. If the teacher has "
        "fewer classes, start another run with the right number (--classes, or classes= in "
        f"Python); otherwise {advice}."
    )


def skewed_answers_warning(
    answers: Answers, class_names: Sequence[str] | None, noun: InputNoun = "image"
) -> str | None:
    """Returns a warning if augmented images are nearly all in one class, and images are not.

    Args:
        answers: The teacher's answers.
        class_names: The names of its classes, or None.
        noun: What the warning calls an image.
    """
    clean = answers.clean.decisions
    augmented = answers.decisions[~answers.is_clean]
    if not len(clean) or len(augmented) < _LEAST_AUGMENTED:
        return None
    usual = int(torch.bincount(augmented).argmax())
    share, of_clean = ((each == usual).double().mean().item() for each in (augmented, clean))
    if share < max(_SKEWED, 2 * of_clean):
        return None
    return (
        f"The teacher put {share:.1%} of {counted(len(augmented), f'augmented {noun}')} in class "
        f"{class_text(usual, class_names)}, but {of_clean:.1%} of "
        f"{counted(len(clean), f'queried {noun}')}. Such answers teach a student little. Mixtures "
        f"of {noun}s may be unlike all that the teacher was trained on; the strategies decisions "
        f"and sd query the {noun}s alone."
    )


TRIED_INPUTS = 16
"""Inputs on which the network of a student is tried before it is trained."""

MEASURE_AGREEMENT = "db3kd evaluate RUN --data … --agree-with TEACHER"
"""The command that measures the agreement of the student of a run."""

LONGER_RUN = (
    "It costs no query: resume the run in its folder with a longer time limit, or with none; its "
    "networks are then trained from the start."
)
"""How to train the student of a run for longer."""


def time_limit_warning(limit: float, steps: int, full: int, advice: str) -> str | None:
    """Returns a warning if a time limit left only a small share of the steps of full training.

    The advice is a sentence on how to train for longer.
    """
    if steps >= _SMALL_SHARE * full:
        return None
    return (
        f"The time limit of {limit:g} seconds cut training from {full:,} to "
        f"{counted(steps, 'step')} ({steps / full:.1%}), so a longer training may give a much "
        f"better student of the same answers. {advice}"
    )


def short_training_warning(steps: int, default: int) -> str | None:
    """Returns a warning if a student was trained for a small share of the default steps only."""
    if steps >= _SMALL_SHARE * default:
        return None
    return (
        f"The student was trained for {counted(steps, 'step')}, {of_default(steps, default)}, so a "
        "longer training on the same answers may give a much better student. It costs no query: "
        "resume the run in its folder with more steps (--steps, or steps= of TrainSettings in "
        "Python), or with the default."
    )


def few_held_out(
    held_out: int, tested: bool, noun: InputNoun = "image", *, pseudo_samples: bool = False
) -> str:
    """Returns what to know about an agreement on few held-out images, or pseudo samples.

    `tested` says whether the student was measured on labelled test images too.
    """
    what = held_out_noun(noun, pseudo_samples=pseudo_samples)
    found = (
        f"The agreement rests on only {counted(held_out, what)}, so it is a rough value. On "
        f"further {noun}s, {MEASURE_AGREEMENT} measures it, at a query for each; another run can "
        "hold out more of them (--held-out, or held_out= of DistillSettings in Python)."
    )
    if not tested:
        found += (
            f" Labelled test {noun}s (--test, or test= in Python) measure accuracy too, and "
            "cost no query."
        )
    return found


def probabilities_warning(network: nn.Module, images: Tensor) -> str | None:
    """Returns a warning if the student's scores of a few images are probabilities, or else None."""
    scores = predict_logits(network, images)
    sums = scores.sum(1)
    add_up = torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    constant = bool(((scores == 0) | (scores == 1)).all())  # no softmax saturates everywhere
    if not add_up or constant or bool((scores < 0).any()):
        return None
    return (
        "The student returns probabilities: its scores are at least 0, and those of each input sum "
        "to 1. The loss expects logits, with which the student learns better: remove the softmax."
    )


def paid_twice_note(queries: int, others: int = 0, price_per_1000: float | None = None) -> str:
    """Returns what to know about a run that sent queries without a usable answer.

    With a price of 1,000 queries, the note states the highest price of these and the other queries.
    """
    price = ""
    if price_per_1000 is not None:
        highest = money((others + queries) * price_per_1000 / 1000)
        price = f" With them, the price is at most {highest}."
    return (
        f"At most {counted(queries, 'query')} may have been paid for twice, because an answer was "
        "lost: a process stopped, the teacher failed, or a request was repeated. The totals count "
        f"them once.{price}"
    )
