"""Which images of a pool to ask about: at random, by entropy, or by greedy k-centre selection.

ActiveThief (Pal et al., AAAI 2020) asks about a random part of the budget, then trains a substitute
and chooses with it in ten rounds. Its substitute is trained afresh in each round, as here. It also
keeps a fifth of the budget for validation. Here these images are trained on, which can only help.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.extraction.task import Extracted, Task
from db3kd.querying import decide_all
from db3kd.training.evaluation import predict_logits

ROUNDS = 10
"""Rounds of ActiveThief."""

RANDOM_SHARE = 0.3
"""The share of the budget that is asked at random: its seed and its validation images."""

SUBSTITUTE_SHARE = 3
"""A substitute that only chooses images trains for 1 / SUBSTITUTE_SHARE of the steps."""

Choice = Callable[[Tensor, Tensor, int], Tensor]
"""From probabilities [N, C], the rows asked so far [A] and a count k, to k other rows."""


def highest_entropy(probabilities: Tensor, asked: Tensor, count: int) -> Tensor:
    """Chooses the rows whose probabilities have the highest entropy.

    Args:
        probabilities: [N, C] float.
        asked: [A] int64, rows that are not chosen again.
        count: The number of rows, at most N - A.

    Returns:
        [count] int64, from the highest entropy down; the lower row wins a tie.
    """
    entropy = torch.special.entr(probabilities.double()).sum(1)
    entropy[asked] = -torch.inf
    return entropy.argsort(descending=True, stable=True)[:count]


def greedy_k_centre(points: Tensor, centres: Tensor, count: int) -> Tensor:
    """Chooses, again and again, the row that is farthest from its nearest centre.

    Each chosen row becomes a centre (Gonzalez 1985; Sener and Savarese, ICLR 2018). The greatest
    distance to a centre is at most twice the least possible one, if there was one centre to start.

    Args:
        points: [N, D] float.
        centres: [A] int64, at least one row.
        count: The number of rows, at most N - A.

    Returns:
        [count] int64, in the order of choice; the lower row wins a tie.

    Raises:
        ValueError: If there is no centre.
    """
    if len(centres) == 0:
        raise ValueError("centres: expected at least one row, got none; ask about some at random")
    points = points.double()
    nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for part in centres.split(256):
        distances = torch.cdist(points, points[part], compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, distances.min(1).values)
    nearest[centres] = -torch.inf
    chosen = torch.empty(count, dtype=torch.int64)
    for number in range(count):
        row = nearest.argmax()
        chosen[number] = row
        nearest = torch.minimum(nearest, (points - points[row]).norm(dim=1))
        nearest[row] = -torch.inf
    return chosen


def random_selection(task: Task) -> Extracted:
    """Asks about random images of the pool and trains on the answers."""
    rows = _shuffled(task)[: task.budget]
    return _trained_on(task, rows, _ask(task, rows), rounds=1)


def active_selection(task: Task, *, choose: Choice) -> Extracted:
    """Asks at random first, and then about what `choose` takes in rounds.

    It chooses by the probabilities of a substitute, which is a student of the answers so far.
    """
    order, budget = _shuffled(task), min(task.budget, len(task.images))
    rows = order[: max(1, round(RANDOM_SHARE * budget))]
    decisions = _ask(task, rows)
    rounds = 0
    for number in range(ROUNDS):
        count = (budget - len(rows)) // (ROUNDS - number)
        if count == 0:
            continue
        substitute = task.train(
            task.images.read(rows), decisions, max(1, task.steps // SUBSTITUTE_SHARE)
        )
        probabilities = F.softmax(predict_logits(substitute, task.images), 1)
        more = choose(probabilities, rows, count)
        decisions = torch.cat([decisions, _ask(task, more)])
        rows = torch.cat([rows, more])
        rounds += 1
    return _trained_on(task, rows, decisions, rounds=1 + rounds)


def _shuffled(task: Task) -> Tensor:
    return torch.randperm(len(task.images), generator=task.generator())


def _ask(task: Task, rows: Tensor) -> Tensor:
    return decide_all(task.teacher, task.images.read, rows)


def _trained_on(task: Task, rows: Tensor, decisions: Tensor, rounds: int) -> Extracted:
    student = task.train(task.images.read(rows), decisions)
    return Extracted(student, {"rounds": rounds, "images_asked": len(rows.unique())})
