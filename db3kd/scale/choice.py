"""The scale of soft labels that was chosen, and the trials that it was chosen from."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from db3kd.wording import InputNoun


@dataclass(frozen=True)
class ScaleTrial:
    """How well students of one scale predict decisions for images that they were not trained on.

    Attributes:
        relative: The scale times the median nearest distance (no unit).
        scale: Logits per input unit.
        agreement: Mean share of held-out images for which student and teacher agree.
        deviation: Sample standard deviation of that share over the students; 0 for one student.
        losses: The `held_out_loss` of each student, in nats.
    """

    relative: float
    scale: float
    agreement: float
    deviation: float
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The mean loss over the students."""
        return statistics.fmean(self.losses)


@dataclass(frozen=True, repr=False)
class ScaleChoice:
    """The chosen scale, and the trials that it was chosen from.

    Attributes:
        scale: Logits per input unit.
        trials: The trials in ascending order of scale.
        factor: The scale as a multiple of the best one for the students of the trials.
    """

    scale: float
    trials: tuple[ScaleTrial, ...]
    factor: float = 1.0

    def __repr__(self) -> str:
        tried = ", ".join(f"{trial.scale:.3g}" for trial in self.trials)
        return f"ScaleChoice(scale={self.scale:.3g}, factor={self.factor:g}, tried {tried})"

    @classmethod
    def among(cls, trials: Sequence[ScaleTrial], factor: float = 1.0) -> "ScaleChoice":
        """Chooses `factor` times the geometric middle of the best scales."""
        ordered = tuple(sorted(trials, key=lambda trial: trial.scale))
        good = cls(math.nan, ordered).as_good_as_best
        middle = math.sqrt(good[0].scale * good[-1].scale) if len(good) > 1 else good[0].scale
        return cls(factor * middle, ordered, factor)

    @property
    def best(self) -> ScaleTrial:
        """The trial with the smallest loss."""
        return best_trial(self.trials)

    @property
    def at_edge(self) -> bool:
        """Whether the best scale is the smallest or the largest one tried."""
        return self.best in (self.trials[0], self.trials[-1])

    @property
    def as_good_as_best(self) -> tuple[ScaleTrial, ...]:
        """The trials whose losses do not differ significantly from those of the best trial.

        The differences between paired students are on average at most their standard error. With
        one student per scale, this is only the best trial.
        """
        return tuple(trial for trial in self.trials if _is_as_good(trial, self.best))

    def describe(self, noun: InputNoun = "image") -> list[str]:
        """Returns lines to print: the scale, the trials, and warnings about the choice.

        Args:
            noun: What the lines call an image.
        """
        tried = "; ".join(
            f"{trial.scale:.3g}: {trial.loss:.4f}, {trial.agreement:.1%}" for trial in self.trials
        )
        good = self.as_good_as_best
        chosen = "the best one"
        if len(good) > 1:
            chosen = "the geometric mean of the smallest and the largest that are about the best"
        if self.factor != 1:
            base = f"{self.scale / self.factor:.3g}"
            chosen = f"{self.factor:.3g} times {base}, {chosen} in short training runs"
        lines = [
            f"scale {self.scale:.3g}: {chosen}, by the loss on held-out {noun}s (loss, and "
            f"agreement with the teacher, by scale: {tried})"
        ]
        if self.at_edge and len(self.trials) > 1:
            side = "smaller" if self.best == self.trials[0] else "larger"
            lines.append(
                f"warning: the best scale is at the edge of those tried; a {side} one may be "
                "better: try it with --scale"
            )
        if len(good) == len(self.trials) > 1:
            lines.append(
                "warning: no scale is clearly better than another; label more images to "
                "distinguish them"
            )
        elif len(good) > 1:
            low, high = good[0].scale, good[-1].scale
            lines.append(f"scales from {low:.3g} to {high:.3g} are about equally good")
        return lines


def best_trial(trials: Sequence[ScaleTrial]) -> ScaleTrial:
    """Returns the trial with the smallest loss; of equal ones, the one with the smallest scale."""
    return min(trials, key=lambda trial: (trial.loss, trial.relative))


def _is_as_good(trial: ScaleTrial, best: ScaleTrial) -> bool:
    gaps = [loss - best_loss for loss, best_loss in zip(trial.losses, best.losses, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return statistics.fmean(gaps) <= error
