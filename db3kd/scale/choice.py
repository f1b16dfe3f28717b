"""The scale of soft labels that was chosen, and the trials that it was chosen from."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from db3kd.wording import InputNoun, listed


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

        Students are paired: those with the same number have the same data and initial weights at
        every scale. The mean difference of their losses is at most its standard error. A trial
        whose students are all slightly worse than those of the best one is therefore left out,
        although another with a larger mean loss may be included. With one student per scale, this
        is only the best trial.
        """
        return tuple(trial for trial in self.trials if _is_as_good(trial, self.best))

    def describe(self, noun: InputNoun = "image") -> list[str]:
        """Returns lines to print: the scale and its origin, the trials, and warnings.

        Args:
            noun: What the lines call an image.
        """
        good, tried = self.as_good_as_best, len(self.trials)
        lines = [f"scale {self.scale:.3g}: {self._origin()}", self._trials_line(noun)]
        if self.at_edge and tried > 1:
            side = "smaller" if self.best == self.trials[0] else "larger"
            lines.append(
                f"warning: the best scale is at the edge of those tried; a {side} one may be "
                "better: try it with --scale"
            )
        if len(good) == tried > 1:
            lines.append(
                f"warning: no scale is clearly better than another; label more {noun}s to "
                "distinguish them"
            )
        elif len(good) > 1:
            lines.append(self._comparison_line())
        return lines

    def _origin(self) -> str:
        """Says what the scale was computed from."""
        good = self.as_good_as_best
        best = "the best one in short training runs"
        mean = f"the geometric mean of {good[0].scale:.3g} and {good[-1].scale:.3g}"
        if self.factor == 1:
            return best if len(good) == 1 else f"{best}, as {mean}"
        base = f"{self.scale / self.factor:.3g}, {best}"
        if len(good) > 1:
            base += f" ({mean})"
        return f"{self.factor:.3g} times {base}, because longer training needs a larger scale"

    def _trials_line(self, noun: InputNoun) -> str:
        tried = ", ".join(
            f"{trial.scale:.3g} ({trial.loss:.4f}, {trial.agreement:.1%})" for trial in self.trials
        )
        return (
            "scales tried in short training runs (mean loss, and agreement with the teacher, on "
            f"labelled {noun}s that each run left out): {tried}"
        )

    def _comparison_line(self) -> str:
        """Says which scales are about equally good, and why others are not."""
        good, best = self.as_good_as_best, f"{self.best.scale:.3g}"
        line = (
            f"{_scales(good)} are about equally good: run by run, with equal data and initial "
            f"weights, the losses differ from those of {best} on average by no more than the "
            "standard error"
        )
        worst = max(good, key=lambda trial: trial.loss)
        excluded = [trial for trial in self.trials if trial not in good and trial.loss < worst.loss]
        if excluded:
            verb, mean = ("is", "its") if len(excluded) == 1 else ("are", "their")
            line += (
                f"; {_scales(excluded)} {verb} more consistently worse, although {mean} mean loss "
                f"is smaller than that of {worst.scale:.3g}"
            )
        return line


def best_trial(trials: Sequence[ScaleTrial]) -> ScaleTrial:
    """Returns the trial with the smallest loss; of equal ones, the one with the smallest scale."""
    return min(trials, key=lambda trial: (trial.loss, trial.relative))


def _is_as_good(trial: ScaleTrial, best: ScaleTrial) -> bool:
    gaps = [loss - best_loss for loss, best_loss in zip(trial.losses, best.losses, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
    return statistics.fmean(gaps) <= error


def _scales(trials: Sequence[ScaleTrial]) -> str:
    """Writes the scales of trials, such as "0.5, 1 and 2"."""
    return listed([f"{trial.scale:.3g}" for trial in trials])
