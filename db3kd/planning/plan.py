"""The plan of a distillation: the queries of each stage, their reasons, and what to warn of."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

from db3kd.boundary.distance import Measure
from db3kd.planning.held_out import (
    few_answers_warning,
    few_held_out_warning,
    held_out_pseudo_samples,
)
from db3kd.wording import InputNoun, held_out_noun, noun_for

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

FEW_FURTHER = 0.1
"""With fewer further queries per image, `auto` uses SD, which costs none. At one query per image,
its students are better than those of proxies; at two they are worse (docs/measurements.md)."""


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
class FurtherQueries:
    """What a larger budget adds to a plan.

    Attributes:
        budget: The larger budget.
        held_out_augmented: Further augmented versions of held-out images.
        rounds: Queries of each further round of training images.
        by_proxies: Whether proxies choose the images of these rounds.
    """

    budget: int
    held_out_augmented: int
    rounds: tuple[int, ...]
    by_proxies: bool = True


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
        pseudo_held_out: Number of held-out pseudo samples; None for one in twenty, at most 1,000.
        classes: Number of classes of the teacher.
        further: What larger budgets added, which `budget`, `held_out_augmented` and `rounds`
            include; see `plan_larger_budget`.
        noun: What texts call an image: "image", or "row" for tables.
        proxies: Whether proxies choose the images of later rounds if the strategy is `auto`.
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
    pseudo_held_out: int | None = None
    classes: int | None = None
    further: tuple[FurtherQueries, ...] = ()
    noun: InputNoun = "image"
    proxies: bool = True

    def __str__(self) -> str:
        """The queries and their reasons, as `db3kd distill` prints them."""
        total = f"{self.strategy}: at most {self.queries:,} of {self.budget:,} queries"
        return "\n".join([total, *self.stage_lines])

    @property
    def stage_lines(self) -> list[str]:
        """A line for each stage: its queries, their name and their reason."""
        width = max(len(stage.name) for stage in self.stages)
        return [f"  {each.queries:>11,}  {each.name:<{width}}  {each.why}" for each in self.stages]

    @property
    def parts(self) -> list[FurtherQueries]:
        """The augmented held-out images and the rounds of each budget, in order."""
        held_out = self.held_out_augmented - sum(each.held_out_augmented for each in self.further)
        rounds = self.rounds[: len(self.rounds) - sum(len(each.rounds) for each in self.further)]
        queries = self.held_out + held_out + sum(rounds)
        chosen = self.strategy == "auto" and self.proxies
        begun = FurtherQueries(queries, held_out, rounds, by_proxies=chosen)
        return [begun, *self.further]

    @property
    def can_grow(self) -> bool:
        """Whether a run with this plan may be continued with a larger budget."""
        return not self.pseudo_samples and (self.strategy == "auto" or not self.label_queries)

    @property
    def chosen_rounds(self) -> list[bool]:
        """Whether proxies choose the images of each round; those of the first one are random."""
        by_proxies = [part.by_proxies for part in self.parts for _ in part.rounds]
        return [number > 0 and chosen for number, chosen in enumerate(by_proxies)]

    @property
    def rounds_to_choose(self) -> int:
        """Number of rounds of the last budget whose images proxies choose."""
        return sum(self.chosen_rounds[len(self.rounds) - len(self.parts[-1].rounds) :])

    @property
    def choices(self) -> list[tuple[int, int]]:
        """The queries of each round to choose, and how many images were not queried before it."""
        last = len(self.rounds) - len(self.parts[-1].rounds)
        asked = [0, *accumulate(self.rounds)]
        found = zip(self.rounds, asked, self.chosen_rounds, strict=False)
        return [
            (queries, max(0, self.training_images - before))
            for queries, before, chosen in list(found)[last:]
            if chosen
        ]

    @property
    def measured_on(self) -> int:
        """Number of held-out images or pseudo samples, which measure the student's agreement."""
        if self.pseudo_samples:
            return held_out_pseudo_samples(self.pseudo_samples, self.pseudo_held_out)
        return self.held_out

    @property
    def training_samples(self) -> int:
        """Number of pseudo samples that are trained on; 0 with images."""
        return self.pseudo_samples - self.measured_on if self.pseudo_samples else 0

    @property
    def held_out_noun(self) -> str:
        """What messages call one of these."""
        return held_out_noun(self.noun, pseudo_samples=bool(self.pseudo_samples))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth changing before the first query: too few images or answers."""
        few = None
        if self.images is not None and self.classes is not None:
            answers = self.training_images if self.label_queries else sum(self.rounds)
            few = few_answers_warning(self.images, answers, self.classes, self.strategy, self.noun)
        found = few, few_held_out_warning(self.measured_on, self.noun)
        return tuple(each for each in found if each is not None)

    @property
    def why_unused(self) -> str | None:
        """Why the plan spends less than the budget; None if it spends all of it."""
        if self.queries >= self.budget:
            return None
        if self.next_useful_budget is not None:
            least = f"{self.next_useful_budget:,}"
            return f"a budget of {least} or more also queries augmented {self.noun}s"
        if self.pseudo_samples:
            return "training uses no more pseudo samples"
        return f"this strategy has no use for more with these {self.noun}s"

    @property
    def text(self) -> str:
        """What is queried, in a few words; for strategies without distances, the plan's."""
        noun = self.noun
        if self.strategy not in ("auto", "augmented", "decisions"):
            return _TEXTS[self.strategy].format(noun=noun)
        if self.pseudo_samples:
            return _TEXTS["zero-shot"].format(noun=noun)
        if self.measure:
            return _TEXTS[self.measure].format(noun=noun)
        later = sum(self.chosen_rounds)
        chosen = f", chosen by proxies in {later} of {len(self.rounds)} rounds" if later else ""
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
        return bool(self.pseudo_samples) or (self.strategy == "auto" and not self.label_queries)

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
        return self.held_out + math.ceil((1 + FEW_FURTHER) * self.training_images)

    @property
    def queries(self) -> int:
        """Maximum number of queries of all stages; at most the budget."""
        return sum(stage.queries for stage in self.stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order in which they are queried."""
        return tuple(stage for stage in self._stages() if stage.queries)

    def _stages(self) -> Iterator[Stage]:
        noun = self.noun
        name = noun_for(self.held_out, f"held-out {noun}")
        yield Stage("held_out", name, self.held_out, "measure the student's agreement")
        left, number, chosen = self.training_images, 0, self.chosen_rounds
        for part in self.parts:
            name = noun_for(part.held_out_augmented, f"held-out augmented {noun}")
            yield Stage("held_out", name, part.held_out_augmented, "choose how to train")
            for queries in part.rounds:
                yield from self._round(number, queries, left, chosen[number])
                left -= min(left, queries)
                number += 1
        if self.measure:
            measure = self.measure.upper()
            why = "make soft labels"
            if self.targets:
                why += f", from the {self.targets} nearest classes of each {noun}"
            yield Stage("distances", f"{measure} distances", self.label_queries, why)
        measured = self.measured_on
        verb = "measures" if measured == 1 else "measure"
        why = f"take the place of {noun}s; {measured:,} of them {verb} the student's agreement"
        yield Stage("pseudo_samples", "pseudo samples", self.pseudo_samples, why)

    def _round(self, number: int, queries: int, left: int, chosen: bool) -> Iterator[Stage]:
        """Yields the stages of a round, which queries the images that are left before others."""
        noun, last = self.noun, len(self.rounds)
        clean = min(left, queries)
        suffix = f", round {number + 1} of {last}" if last > 1 else ""
        why = f"the {noun}s that proxies are least sure about" if chosen else "a random sample"
        if clean == self.training_images:
            why = f"the class of each {noun}"
        yield Stage("round", f"{noun_for(clean, 'decision')}{suffix}", clean, why)
        why = "where proxies are least sure" if chosen else f"classes between the {noun}s"
        name = noun_for(queries - clean, f"augmented {noun}")
        yield Stage("round", f"{name}{suffix}", queries - clean, why)
