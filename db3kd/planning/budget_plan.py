"""Divides a query budget among the stages of a strategy."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from db3kd.argument_types import check_count
from db3kd.boundary.sign_opt_settings import MAX_CLASSES
from db3kd.errors import ArgumentError
from db3kd.labelling.settings import Measure
from db3kd.wording import InputNoun, counted, did_you_mean

Strategy = Literal["auto", "decisions", "augmented", "sd", "bd", "mbd", "db3kd-paper", "zero-shot"]
"""How a budget is spent."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
"""The names of all strategies."""

_TEXTS: dict[Strategy, str] = {
    "decisions": "one decision for each {noun}, and no more queries",
    "sd": "soft labels from the distances to other {noun}s",
    "bd": "soft labels from boundary distances",
    "mbd": "soft labels from minimal boundary distances",
    "db3kd-paper": "the labels and the loss of the paper (MBD, 1/d, T = 20)",
    "zero-shot": "decisions for pseudo samples; needs no {noun}s",
}
"""What is queried, in a few words; for `auto` and `augmented` it depends on the plan."""

LABEL_MEASURES: dict[Strategy, Measure] = {
    "sd": "sd",
    "bd": "bd",
    "mbd": "mbd",
    "db3kd-paper": "mbd",
}
"""The measure of each strategy that searches for boundaries."""

ROUNDS = 4
"""Number of rounds. The first one is random, proxies choose the images of the others."""

_HELD_OUT_SHARE = 0.05
_SMALL_SET = 100
"""If there are fewer images, twice the share is held out, so that agreement can be measured."""
_MAX_HELD_OUT = 1000
_HELD_OUT_AUGMENTED_SHARE = 0.04
_MAX_HELD_OUT_AUGMENTED = 2000
_LEAST_QUERIES = 20
_LEAST_QUERIES_PER_CLASS = 2
_LEAST_PSEUDO_SAMPLES_PER_CLASS = 20
_MOST_ANSWERS = 2_000_000
_MOST_PER_IMAGE = 2**16
"""Training would not see more answers, and more mixtures of one image teach nothing new."""

MOST_PER_PAIR = 20_000
"""Queries for one distance, as many as in the paper."""

_QUERIES_PER_TARGET = 20
_LEAST_TARGETS = 3
"""If the budget gives a class fewer queries, only the nearest classes are searched, but at least
this many. With fewer, soft labels are no better than those of SD (docs/measurements.md)."""

_FEW_FURTHER = 0.1
"""With fewer further queries per image, `auto` uses SD, which costs none. At one query per image,
its students are better than those of proxies; at two they are worse (docs/measurements.md)."""

_SD_IMAGES = range(_LEAST_QUERIES, 20_001)
"""Numbers of images for which `auto` computes the distances between all images."""

_LEAST_CHOSEN = 200
"""With fewer augmented images there is one random round, since proxies would learn too little."""


@dataclass(frozen=True)
class Stage:
    """A part of the budget.

    Attributes:
        kind: Which part it is.
        name: What is queried.
        queries: Exact or, for distances, maximum number of queries.
        why: What the answers are for.
    """

    kind: Literal["held_out", "round", "distances", "pseudo_samples"]
    name: str
    queries: int
    why: str


@dataclass(frozen=True)
class BudgetPlan:
    """How many queries each stage of a distillation gets. Made by `plan_budget`.

    Attributes:
        strategy: The strategy.
        budget: The number of queries that may be spent.
        images: Number of images; None without images.
        held_out: Images that the teacher classifies, but that are never trained on.
        held_out_augmented: Augmented versions of held-out images, on which options are compared.
        rounds: Queries of each round of training images. A round queries images before
            augmented ones.
        label_queries: Maximum number of queries for distances.
        pseudo_samples: Number of images to make from the teacher's decisions.
        targets: Number of nearest classes whose distance is searched per image; None for all.
    """

    strategy: Strategy
    budget: int
    images: int | None
    held_out: int = 0
    held_out_augmented: int = 0
    rounds: tuple[int, ...] = ()
    label_queries: int = 0
    pseudo_samples: int = 0
    targets: int | None = None

    @property
    def text(self) -> str:
        """What is queried, in a few words; for strategies without distances, the plan's."""
        return self.text_in_words()

    def text_in_words(self, noun: InputNoun = "image") -> str:
        """Returns what is queried, in a few words.

        Args:
            noun: What it calls an image, such as a row of a table.
        """
        if self.strategy not in ("auto", "augmented", "decisions"):
            return _TEXTS[self.strategy].format(noun=noun)
        if self.pseudo_samples:
            return _TEXTS["zero-shot"].format(noun=noun)
        if self.measure:
            return _TEXTS[self.measure].format(noun=noun)
        later = len(self.rounds) - 1
        chosen = f", chosen by proxies in {later} of {later + 1} rounds" if later else ""
        if sum(self.rounds) <= self.training_images:
            each = sum(self.rounds) == self.training_images
            if each and self.strategy == "decisions":
                return _TEXTS[self.strategy].format(noun=noun)
            part = f"decisions for a part of the {noun}s"
            asked = f"one decision for each {noun}" if each else part
            return asked + (chosen or ("" if each else ", drawn at random"))
        kind = f"augmented {noun}s" if later else f"random augmented {noun}s"
        return f"decisions for the {noun}s and for {kind}{chosen}"

    @property
    def uses_proxies(self) -> bool:
        """Whether proxies choose what is queried or may teach the student."""
        return self.strategy in ("auto", "zero-shot") and not self.label_queries

    @property
    def training_images(self) -> int:
        """Number of images that may be trained on."""
        return (self.images or 0) - self.held_out

    def training_batch(self, batch_size: int) -> int:
        """Returns the number of images in a training step; fewer labelled images are one batch."""
        return min(batch_size, self.training_images) if self.label_queries else batch_size

    @property
    def measure(self) -> Measure | None:
        """The distances that soft labels are made of; None without soft labels."""
        return LABEL_MEASURES.get(self.strategy, "sd") if self.label_queries else None

    @property
    def next_useful_budget(self) -> int | None:
        """The smallest budget above this one that `auto` spends otherwise; None if none is known.

        With about one query per image, `auto` uses SD, which leaves the rest of the budget. With
        more, it also queries augmented images.
        """
        if self.strategy != "auto" or not self.label_queries:
            return None
        return self.held_out + math.ceil((1 + _FEW_FURTHER) * self.training_images)

    @property
    def queries(self) -> int:
        """Maximum number of queries of all stages; at most the budget."""
        return sum(stage.queries for stage in self.stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they are queried."""
        return self.stages_in_words()

    def stages_in_words(self, noun: InputNoun = "image") -> tuple[Stage, ...]:
        """Returns the stages in the order in which they are queried.

        Args:
            noun: What their names and reasons call an image, such as a row of a table.
        """
        return tuple(stage for stage in self._stages(noun) if stage.queries)

    def _stages(self, noun: str) -> Iterator[Stage]:
        yield Stage(
            "held_out", f"held-out {noun}s", self.held_out, "measure the student's agreement"
        )
        yield Stage(
            "held_out",
            f"held-out augmented {noun}s",
            self.held_out_augmented,
            "choose how to train",
        )
        yield from self._rounds(noun)
        if self.measure:
            measure = self.measure.upper()
            why = "make soft labels"
            if self.targets:
                why += f", from the {self.targets} nearest classes of each {noun}"
            yield Stage("distances", f"{measure} distances", self.label_queries, why)
        held_out = held_out_pseudo_samples(self.pseudo_samples)
        why = f"take the place of {noun}s; {held_out:,} of them measure the student's agreement"
        yield Stage("pseudo_samples", "pseudo samples", self.pseudo_samples, why)

    def _rounds(self, noun: str) -> Iterator[Stage]:
        left = self.training_images
        last = len(self.rounds)
        for number, queries in enumerate(self.rounds, 1):
            clean = min(left, queries)
            left -= clean
            chosen = number > 1
            suffix = f", round {number} of {last}" if last > 1 else ""
            why = f"the {noun}s that proxies are least sure about" if chosen else "a random sample"
            if clean == self.training_images:
                why = f"the class of each {noun}"
            yield Stage("round", f"decisions{suffix}", clean, why)
            why = "where proxies are least sure" if chosen else f"classes between the {noun}s"
            yield Stage("round", f"augmented {noun}s{suffix}", queries - clean, why)


def plan_budget(
    budget: int,
    classes: int,
    images: int | None,
    strategy: Strategy = "auto",
    *,
    noun: InputNoun = "image",
) -> BudgetPlan:
    """Divides a budget among the stages of a strategy.

    The plan depends only on these numbers, so it can be shown before the first query. Queries
    beyond what training can use are not spent.

    Example:
        >>> plan = plan_budget(20_000, classes=10, images=1_000)
        >>> [(stage.name, stage.queries) for stage in plan.stages]

    Args:
        budget: Maximum number of queries.
        classes: Number of classes of the teacher.
        images: Number of images; None if there are none.
        strategy: One of `STRATEGIES`.
        noun: What errors call an image, such as a row of a table.

    Raises:
        ValueError: If the strategy is unknown or does not fit, if there are too few images, or if
            the budget is too small for any useful student. The message names the smallest one.
    """
    budget = check_count(budget, "budget")
    classes = check_count(classes, "classes", least=2)
    if strategy not in STRATEGIES:
        raise ArgumentError(
            "strategy",
            f"expected one of {', '.join(STRATEGIES)}, got {strategy!r}"
            f"{did_you_mean(strategy, STRATEGIES)}",
        )
    if strategy == "zero-shot" or images is None:
        if strategy not in ("auto", "zero-shot"):
            raise ArgumentError(
                "images",
                f'strategy {strategy!r} needs {noun}s, got none; pass {noun}s, or use "zero-shot"',
            )
        _check_useful(budget, _LEAST_PSEUDO_SAMPLES_PER_CLASS * classes, "without images")
        return BudgetPlan(strategy, budget, None, pseudo_samples=min(budget, _MOST_ANSWERS))
    images = check_count(images, "images")
    if images < 2:
        raise ArgumentError(
            "images", "expected at least 2, one to train on and one to hold out, got 1"
        )
    least = min(images, max(_LEAST_QUERIES, _LEAST_QUERIES_PER_CLASS * classes))
    _check_useful(budget, least, f"with {counted(images, noun)} of {classes:,} classes")
    share = _HELD_OUT_SHARE if images >= _SMALL_SET else 2 * _HELD_OUT_SHARE
    held_out = max(1, min(round(share * min(images, budget)), _MAX_HELD_OUT))
    training = images - held_out
    if strategy in LABEL_MEASURES:
        if LABEL_MEASURES[strategy] == "mbd" and classes > MAX_CLASSES:
            raise ArgumentError(
                "strategy",
                f"{strategy!r} needs a teacher with at most {MAX_CLASSES:,} "
                f"classes, got {classes:,}; use another strategy",
            )
        if training < 2:
            raise ArgumentError(
                "images",
                f"strategy {strategy!r} needs at least 3, two to measure a distance "
                f"between and one to hold out, got {images}",
            )
        left = budget - held_out
        if left < training:
            raise ArgumentError(
                "budget",
                f"strategy {strategy!r} needs one decision for each of "
                f"{counted(images, noun)}, got {counted(budget, 'query')}; use fewer {noun}s or "
                "another strategy",
            )
        most = training * (1 + MOST_PER_PAIR * (classes - 1))
        queries = training if strategy == "sd" else min(left, most)
        targets = None
        if strategy in ("bd", "mbd"):
            count = max(_LEAST_TARGETS, (queries // training - 1) // _QUERIES_PER_TARGET)
            targets = count if count < classes - 1 else None
        return BudgetPlan(
            strategy, budget, images, held_out, label_queries=queries, targets=targets
        )
    most = max(training, min(_MOST_ANSWERS, training * _MOST_PER_IMAGE))
    left = min(budget - held_out, most)
    few = training <= left < (1 + _FEW_FURTHER) * training
    if strategy == "auto" and few and training in _SD_IMAGES:
        return BudgetPlan(strategy, budget, images, held_out, label_queries=training)
    if strategy == "decisions":
        return BudgetPlan(strategy, budget, images, held_out, rounds=(min(training, left),))
    spare = max(0, left - training)
    augmented = min(round(_HELD_OUT_AUGMENTED_SHARE * spare), _MAX_HELD_OUT_AUGMENTED)
    rounds: tuple[int, ...] = (left - augmented,)
    if strategy == "auto":
        rounds = _choice_rounds(training, left - augmented)
    return BudgetPlan(strategy, budget, images, held_out, augmented, rounds)


def _choice_rounds(training: int, queries: int) -> tuple[int, ...]:
    """Divides the queries into rounds; proxies trained on earlier answers choose the later ones."""
    if queries < training:
        # The first half is random. Proxies choose the rest of the images.
        if queries < 2 * _LEAST_CHOSEN:
            return (queries,)
        later = queries // (2 * (ROUNDS - 1))
        return (queries - later * (ROUNDS - 1), *[later] * (ROUNDS - 1))
    spare = queries - training
    if spare < _LEAST_CHOSEN * ROUNDS:
        return (queries,)
    part = spare // ROUNDS
    return (training + spare - part * (ROUNDS - 1), *[part] * (ROUNDS - 1))


def _check_useful(budget: int, least: int, circumstances: str) -> None:
    if budget < least:
        raise ArgumentError(
            "budget",
            f"expected at least {counted(least, 'query')}, got {budget:,}; "
            f"{circumstances}, fewer queries train no useful student",
        )


def held_out_pseudo_samples(samples: int) -> int:
    """Returns how many of the pseudo samples of a run are never trained on."""
    return max(1, min(round(_HELD_OUT_SHARE * samples), _MAX_HELD_OUT))
