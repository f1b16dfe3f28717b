"""Collects the answers of a distillation plan, in rounds whose images proxies choose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.answers.answers import Answers
from db3kd.answers.batches import AnsweredBatches, answered_probabilities
from db3kd.answers.image_choice import choose_rows, further_held_out_rows, held_out_rows
from db3kd.answers.neighbour_labels import NEIGHBOUR_TEMPERATURE
from db3kd.arguments.images import are_equal
from db3kd.errors import DivergedError
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.query_rounds.answer_run import HELD_OUT, AnswerRun
from db3kd.pipelines.student_warnings import likely_causes, skewed_answers_warning
from db3kd.pipelines.training_display import shown_training
from db3kd.planning import BudgetPlan
from db3kd.progress import ProgressListener, show_progress
from db3kd.querying.driver import FIRST_CHECKED
from db3kd.teachers import Teacher
from db3kd.teachers.base import class_names_of
from db3kd.teachers.single_class import IF_RARE, check_classes_differ
from db3kd.training.loss import KDLoss
from db3kd.training.network_store import NetworkStore
from db3kd.training.process import TrainingProcess
from db3kd.training.settings import TrainSettings
from db3kd.wording import input_noun

_LOG = logging.getLogger("db3kd")

ROUND_DIVISOR = 6
"""Proxies that choose images train for 1 / ROUND_DIVISOR of the steps of full training."""


@dataclass(frozen=True)
class Proxies:
    """How to make the proxies of a run.

    Attributes:
        make: Makes a network with fresh weights.
        name: The name of the architecture, for the identity of a training.
        count: The number of proxies.
    """

    make: Callable[[], nn.Module]
    name: str
    count: int


def ask_rounds(
    run: AnswerRun,
    plan: BudgetPlan,
    proxies: Proxies,
    settings: DistillSettings,
    store: NetworkStore,
    notes: DistillNotes,
    steps: Callable[[int], int],
    *,
    progress: bool,
    rare_classes: bool = False,
) -> Answers:
    """Asks about the held-out images and then, in rounds, about the images to train on.

    From the second round on, proxies trained on the answers so far choose the images. Their
    held-out agreement is recorded, to show how agreement grows with the queries.

    Args:
        run: Asks the teacher and keeps the answers.
        plan: How many images each round queries.
        proxies: How proxies are made.
        settings: How they are trained.
        store: Trains them.
        notes: Keeps agreements and times.
        steps: Returns the number of steps of full training from the number of answers.
        progress: Whether to show the training of proxies.
        rare_classes: Whether to spend the whole budget even if the first answers are all in one
            class.

    Returns:
        All answers.

    Raises:
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    seed = settings.training.seed
    chosen = plan.chosen_rounds

    def check_first(decisions: Tensor) -> None:
        if not rare_classes:
            _check_classes_differ(run.teacher, decisions, f". {IF_RARE}")

    def ask_held_out(part: int, augmented: int) -> None:
        def choose(answers: Answers) -> Tensor:
            if part:
                return further_held_out_rows(answers, augmented, seed, part)
            return held_out_rows(answers.images, augmented, seed)

        with notes.timed_part("asking"):
            run.ask(HELD_OUT, augmented if part else plan.held_out + augmented, choose, check_first)

    def ask_round(number: int, count: int) -> None:
        may_check = number or len(run.answers) >= FIRST_CHECKED
        if may_check and not run.holds_next(number, count):  # a stored round costs nothing
            check_first(run.answers.decisions)

        def choose(answers: Answers) -> Tensor:
            networks: list[nn.Module] = []
            which = f"{input_noun(run.teacher.image_shape)}s to query, round {number + 1}"
            which += f" of {len(plan.rounds)}"
            if chosen[number] and proxies.count and not are_equal(answers.training.decisions):
                networks = _train_to_choose(
                    answers,
                    proxies,
                    settings,
                    store,
                    steps(len(answers.training)),
                    number,
                    f"choosing {which}",
                    progress,
                )
                agrees = agrees_with(networks, answers.held_out.clean)
                # Measured again if the run was stopped while choosing, or lost a shard.
                notes.add_agreement(len(answers), agrees.float().mean().item())
            return choose_rows(
                answers.training,
                networks,
                count,
                seed,
                number,
                title=f"ranking proposed {which}",
                progress=progress and bool(networks),
            )

        with notes.timed_part("asking", apart_from="choosing"):
            run.ask(number, count, partial(_timed_choice, notes, choose), check_first)

    number, skewed = 0, None
    for part, queries in enumerate(plan.parts):
        if queries.held_out_augmented or not part:
            ask_held_out(part, queries.held_out_augmented)
        for count in queries.rounds:
            ask_round(number, count)
            number += 1
            if skewed is None:  # once, while most of the budget is left
                names = class_names_of(run.teacher)
                skewed = skewed_answers_warning(
                    run.answers, names, input_noun(run.teacher.image_shape)
                )
                if skewed is not None:
                    _LOG.warning("%s", skewed)
    if plan.rounds:  # otherwise a labelling follows, which checks its own answers
        _check_classes_differ(run.teacher, run.answers.decisions)
    return run.answers


def agrees_with(networks: list[nn.Module], answers: Answers) -> Tensor:
    """Returns for which answered images the mean of several networks predicts the teacher's class.

    Returns:
        [n] bool.
    """
    return answered_probabilities(networks, answers).argmax(1) == answers.decisions


def train_proxy(
    name: str,
    answers: Answers,
    proxies: Proxies,
    index: int,
    settings: TrainSettings,
    store: NetworkStore,
    *,
    balance: float = 0.0,
    soft_labels: Callable[[], Tensor] | None = None,
    keep_longer: bool = False,
    title: str = "",
    progress: ProgressListener | bool = False,
) -> nn.Module:
    """Trains a proxy on the answers to train on, by cross-entropy and with soft labels if any.

    Args:
        name: The name of the network in the store.
        answers: All answers.
        proxies: How proxies are made.
        index: The number of the proxy, which seeds its batches.
        settings: How it is trained.
        store: Trains it.
        balance: See `AnsweredBatches`.
        soft_labels: Returns soft labels for the answers to train on, as `neighbour_labels` does;
            called only if the proxy is trained. None for none.
        keep_longer: Whether one that was trained for more steps before is as good.
        title: The title of the progress display.
        progress: See `db3kd.distill`.
    """
    batches = AnsweredBatches(
        answers.training, settings.batch_size, index, balance=balance, soft_labels=soft_labels
    )
    loss: Callable[..., Tensor] = F.cross_entropy
    depends_on: dict[str, Any] = {
        "network": proxies.name,
        "answers": len(answers),
        "index": index,
        "balance": balance,
        "settings": settings,
    }
    if soft_labels is not None:
        loss = KDLoss(NEIGHBOUR_TEMPERATURE, alpha=1.0, beta=1.0)
        depends_on["soft_labels"] = "neighbours"
    network = store.get(
        name,
        proxies.make,
        shown_training(proxies.make, batches, loss, settings, title=title, progress=progress),
        depends_on,
        keep_longer,
    )
    # One that was trained before is on the CPU, but all proxies of a run must be on one device.
    return network.to(TrainingProcess.current(settings.device, settings.precision).device)


def _train_to_choose(
    answers: Answers,
    proxies: Proxies,
    settings: DistillSettings,
    store: NetworkStore,
    steps: int,
    number: int,
    title: str,
    progress: bool,
) -> list[nn.Module]:
    """Trains the proxies of a round for a part of the steps of full training.

    Args:
        answers: All answers so far.
        proxies: How proxies are made.
        settings: How they are trained.
        store: Trains them.
        steps: The steps of full training.
        number: The number of the round, from 0.
        title: The title of the progress display.
        progress: Whether to show it.
    """
    short = max(1, steps // ROUND_DIVISOR)
    networks = []
    with show_progress(title, proxies.count * short, "training steps", progress) as show:
        for index in range(proxies.count):
            for rate in settings.learning_rates:
                training = settings.trained_for(short, rate, index)
                name = f"round-{number}-proxy-{index}"
                try:
                    networks.append(train_proxy(name, answers, proxies, index, training, store))
                    break
                except DivergedError:  # it diverges; another rate may not
                    if rate == settings.learning_rates[-1]:
                        raise
            show((index + 1) * short)
    return networks


def _timed_choice(
    notes: DistillNotes, choose: Callable[[Answers], Tensor], answers: Answers
) -> Tensor:
    with notes.timed_part("choosing"):
        return choose(answers)


def _check_classes_differ(teacher: Teacher, decisions: Tensor, advice: str = "") -> None:
    noun = input_noun(teacher.image_shape)
    consequence = f"a student has nothing to learn. Likely causes: {likely_causes(noun)}"
    check_classes_differ(teacher, decisions, f"{noun}s", consequence + advice)
