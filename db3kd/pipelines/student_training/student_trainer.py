"""Trains the proxies and the student of a distillation, and makes choices without a query."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.answers.answers import Answers
from db3kd.answers.batches import (
    ANSWERED_SHARE,
    AnsweredBatches,
    NewImages,
    ProxyTaughtBatches,
    TaughtLoss,
    answered_probabilities,
)
from db3kd.answers.neighbour_labels import neighbour_labels
from db3kd.errors import DivergedError
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.query_rounds.rounds import Proxies, agrees_with, train_proxy
from db3kd.pipelines.student_training.rules import (
    CHOICE_DIVISOR,
    answered_share,
    can_choose,
    has_batch_normalisation,
    learns_from_new_mixtures,
    proxies_usually_help,
    reason_against_proxies,
    trains_proxies,
)
from db3kd.pipelines.training_display import shown_training
from db3kd.progress import ProgressListener
from db3kd.synthesis.masked_mixes import MaskedMixes
from db3kd.teachers.fingerprints import weights_fingerprint
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.early_stopping import EarlyStopping, HeldOutAgreement
from db3kd.training.loop import BatchSource
from db3kd.training.network_store import NetworkStore
from db3kd.training.stable import has_died

_LOG = logging.getLogger(__name__)

VALIDATION = "validation agreement"
"""The share of the held-out images, and of augmented versions of them, for which a network predicts
the teacher's class. Training is chosen by it, and may stop early by it. The agreement that a run
reports is that on the held-out images themselves."""

_CHOICE_ERRORS = 1.0
"""Number of standard errors by which another option must be better than the first one."""

_NEIGHBOUR_ANSWERS = 3
"""Answers per image below which proxies also learn from the distances between the samples. With 2
per image they agree more often with the teacher, with 4 and 10 less (docs/measurements.md)."""

_PSEUDO_SAMPLE_BALANCE = 0.5
"""The `balance` of batches of pseudo samples, see `AnsweredBatches`."""

_NONE_LEARNED = "Decisions alone taught the student, because no proxy learned the answers."

_MOST_KNOWN = 2**24
"""Most probabilities of proxies for answered images that are kept, 64 MB."""


@dataclass(frozen=True)
class Choice:
    """A choice by validation agreement.

    Attributes:
        question: What was chosen.
        options: The agreement of each option, in [0, 1]. The first one is the default.
        chosen: The option that was taken.
    """

    question: str
    options: Mapping[str, float]
    chosen: str


@dataclass(kw_only=True)
class StudentTrainer:
    """How a student learns from answers, and what was chosen for it.

    Attributes:
        make: Makes a student with fresh weights.
        name: What identifies its architecture and initial weights.
        classes: The number of the teacher's classes.
        pseudo_samples: Whether the images are pseudo samples. Images of rare classes are then
            trained on more often, because random images favour some classes, and the new images
            that proxies label are masked mixes (docs/zero-shot.md).
        settings: How networks are trained.
        steps: Steps of full training.
        store: Trains each network once.
        notes: Keeps the choices.
        callbacks: Further callbacks of the student's training.
        progress: See `db3kd.distill`.
        choices: The choices so far, to which each choice is added.
        left_out: A sentence for each proxy that does not teach the student, because it has learned
            nothing.
        why: A sentence on why proxies taught the student, or did not, if it is not the result of
            `proxies_usually_help` or of a choice.
    """

    make: Callable[[], nn.Module]
    name: str
    classes: int
    pseudo_samples: bool
    settings: DistillSettings
    steps: int
    store: NetworkStore
    notes: DistillNotes
    callbacks: Sequence[TrainingCallback] = ()
    progress: ProgressListener | bool = False
    choices: list[Choice] = field(default_factory=list, init=False)
    left_out: list[str] = field(default_factory=list, init=False)
    why: str | None = field(default=None, init=False)
    _known: Tensor | None = field(default=None, init=False, repr=False)

    def choose_learning_rate(self, answers: Answers) -> float:
        """Chooses the learning rate of all full training by short training runs of students."""
        rates = {f"{rate:g}": rate for rate in self.settings.learning_rates}

        def short_student(option: str) -> nn.Module:
            return self._train(
                f"choice-rate-{option}", answers, [], self.steps // CHOICE_DIVISOR, rates[option]
            )

        return rates[self._choose("learning rate", list(rates), answers, short_student)]

    def _train_proxies(
        self, answers: Answers, proxies: Proxies, rate: float, *, prefer_proxies: bool
    ) -> list[nn.Module]:
        training = answers.training
        soft_labels = None
        if prefer_proxies and len(training) < _NEIGHBOUR_ANSWERS * training.images.partners:
            soft_labels = cache(partial(neighbour_labels, training, self.classes))
        networks = []
        for index in range(proxies.count):
            title = f"training proxy {index + 1} of {proxies.count}"
            settings = self.settings.trained_for(self.steps, rate, index)
            try:
                network = train_proxy(
                    f"proxy-{index}",
                    answers,
                    proxies,
                    index,
                    settings,
                    self.store,
                    balance=self._balance,
                    soft_labels=soft_labels,
                    # A shorter time limit must not discard what is trained already.
                    keep_longer=self.settings.time_limit is not None,
                    title=title,
                    progress=self.progress,
                )
            except DivergedError as error:
                self._leave_out(title, str(error))
                continue
            rows = torch.arange(len(training))
            if has_died(network, training.as_source(), training.decisions, settings, rows=rows):
                self._leave_out(title, "it answers all images with one class")
                continue
            networks.append(network)
        return networks

    def _leave_out(self, title: str, reason: str) -> None:
        self.left_out.append(f"{title}: {reason}; it does not teach the student")
        _LOG.warning("%s", self.left_out[-1])

    def prefers_proxies(self, training: Answers, proxies: Proxies) -> bool:
        """Returns whether the run has proxies, and they label images for the student by default."""
        return proxies.count > 0 and proxies_usually_help(
            len(training),
            training.images.partners,
            self.steps,
            learns_from_new_mixtures(self.make, proxies.make, training.images.image_shape),
        )

    def choose_proxies(
        self, answers: Answers, proxies: Proxies, rate: float, *, prefer_proxies: bool
    ) -> list[nn.Module]:
        """Trains proxies of images, and returns those that label images for the student.

        Proxies are not trained if they cannot be chosen. If they label images by default
        (`prefer_proxies`), they also learn from the distances between the samples, if there are
        very few answers. A rate that suits the student may be too fast for a proxy, so proxies
        that have learned nothing are left out.
        """
        trained = trains_proxies(preferred=prefer_proxies, compared=self._can_choose(answers))
        if not proxies.count or not trained:
            return []
        networks = self._train_proxies(answers, proxies, rate, prefer_proxies=prefer_proxies)
        if not networks:
            self.why = _NONE_LEARNED
            return []
        chosen_from = {"decisions alone": [], "decisions and proxies": networks}
        if prefer_proxies:
            chosen_from = dict(reversed(chosen_from.items()))

        def short_student(option: str) -> nn.Module:
            return self._train(
                f"choice-labels-{'proxies' if chosen_from[option] else 'decisions'}",
                answers,
                chosen_from[option],
                self.steps // CHOICE_DIVISOR,
                rate,
            )

        question = "labels of the student"
        return chosen_from[self._choose(question, list(chosen_from), answers, short_student)]

    def proxies_without_images(
        self, answers: Answers, proxies: Proxies, rate: float
    ) -> list[nn.Module]:
        """Trains proxies of pseudo samples, if they help the student, and returns them.

        As in `choose_proxies`, proxies that have learned nothing are left out.
        """
        if not proxies.count:
            return []
        reason = reason_against_proxies(
            len(answers.training),
            self.steps,
            self.settings.training.batch_size,
            batch_normalisation=has_batch_normalisation(self.make),
        )
        if reason is not None:
            self.why = f"Decisions alone taught the student: {reason}."
            return []
        networks = self._train_proxies(answers, proxies, rate, prefer_proxies=False)
        self.why = _NONE_LEARNED
        if networks:
            self.why = (
                "Decisions and proxies taught the student, because training is long enough for "
                "proxies to help without images."
            )
        return networks

    def train_student(self, answers: Answers, proxies: list[nn.Module], rate: float) -> nn.Module:
        """Trains the student fully, and shows its validation agreement."""
        return self._train(
            "student",
            answers,
            proxies,
            self.steps,
            rate,
            [*validation_callbacks(answers, self.settings.patience), *self.callbacks],
            shown=True,
        )

    def _train(
        self,
        name: str,
        answers: Answers,
        proxies: list[nn.Module],
        steps: int,
        rate: float,
        callbacks: Sequence[TrainingCallback] = (),
        shown: bool = False,
    ) -> nn.Module:
        settings = self.settings.trained_for(max(1, steps), rate, 0)
        batches: BatchSource
        loss: Callable[..., Tensor]
        depends_on: dict[str, Any] = {}
        if proxies:
            depends_on["taught_by"] = [weights_fingerprint(proxy) for proxy in proxies]
            if self.pseudo_samples:
                depends_on["new_images"] = "masked mixes"
            share = answered_share(self.make, answers.training)
            if share != ANSWERED_SHARE:
                depends_on["answered_share"] = share
            answered = self.steps * settings.batch_size * share
            batches = ProxyTaughtBatches(
                answers.training,
                proxies,
                settings.batch_size,
                0,
                answered_share=share,
                balance=self._balance,
                known=(
                    partial(self._known_probabilities, answers.training, proxies)
                    if len(answers.training) <= min(answered, _MOST_KNOWN // self.classes)
                    else None
                ),
                new_images=self._new_images(answers.training),
            )
            loss = TaughtLoss(self.settings.alpha)
        else:
            batches = AnsweredBatches(
                answers.training, settings.batch_size, 0, balance=self._balance
            )
            loss = F.cross_entropy
        return self.store.get(
            name,
            self.make,
            shown_training(
                self.make,
                batches,
                loss,
                settings,
                callbacks,
                title="training the student",
                progress=shown and self.progress,
            ),
            {
                "network": self.name,
                "answers": len(answers),
                "alpha": self.settings.alpha,
                "patience": self.settings.patience if callbacks else None,
                "balance": self._balance,
                "settings": settings,
                **depends_on,
            },
        )

    @property
    def _balance(self) -> float:
        return _PSEUDO_SAMPLE_BALANCE if self.pseudo_samples else 0.0

    def _new_images(self, training: Answers) -> NewImages | None:
        """Returns the new images that proxies label; None for the mixtures of images."""
        if not self.pseudo_samples:
            return None
        seed = self.settings.training.seed
        return MaskedMixes(training.images, training.rows, training.decisions, seed)

    def _known_probabilities(self, training: Answers, proxies: list[nn.Module]) -> Tensor:
        """Returns the probabilities of the proxies for the answers, which are computed once."""
        if self._known is None:
            self._known = answered_probabilities(proxies, training)
        return self._known

    def _can_choose(self, answers: Answers) -> bool:
        return can_choose(self.steps, len(answers.held_out))

    def _choose(
        self,
        question: str,
        options: list[str],
        answers: Answers,
        train: Callable[[str], nn.Module],
    ) -> str:
        """Returns the first option, or another one whose network agrees significantly more often.

        Few images are held out, so a small difference may be chance.
        """
        if len(options) == 1 or not self._can_choose(answers):
            return options[0]

        def measure() -> dict[str, Any]:
            agrees: dict[str, Tensor] = {}
            for option in options:
                with suppress(DivergedError):  # an option that diverges is not chosen
                    agrees[option] = agrees_with([train(option)], answers.held_out)
            if not agrees:
                raise DivergedError(
                    f"{question}: expected a finite loss with one of {', '.join(options)}, got none"
                    "; pass lower learning_rates"
                )
            chosen, *others = agrees
            for option in others:
                if standard_errors_above(agrees[option], agrees[chosen]) > _CHOICE_ERRORS:
                    chosen = option
            shares = {option: each.float().mean().item() for option, each in agrees.items()}
            return {"options": {each: shares.get(each, 0.0) for each in options}, "chosen": chosen}

        depends_on = {
            "options": options,
            "student": self.name,
            "answers": len(answers),
            "steps": self.steps // CHOICE_DIVISOR,
            "settings": self.settings,
        }
        choice = self.notes.once(f"choice of {question}", depends_on, measure)
        self.choices.append(Choice(question, **choice))
        return str(choice["chosen"])


def validation_callbacks(answers: Answers, patience: int | None) -> list[TrainingCallback]:
    """Returns the callbacks that measure a student in training, and stop it early if wanted."""
    held_out = answers.held_out
    callbacks: list[TrainingCallback] = [
        HeldOutAgreement(held_out.as_source(), held_out.decisions, VALIDATION)
    ]
    if patience is not None:
        callbacks.append(EarlyStopping(VALIDATION, patience))
    return callbacks


def standard_errors_above(agrees: Tensor, others: Tensor) -> float:
    """Returns by how many standard errors one network agrees more often than another (McNemar).

    Both arguments, [n] bool, say for which images a network predicts the teacher's class.
    """
    gained, lost = int((agrees & ~others).sum()), int((others & ~agrees).sum())
    return (gained - lost) / math.sqrt(gained + lost) if gained + lost else 0.0
