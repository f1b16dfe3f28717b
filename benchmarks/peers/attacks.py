"""The searches that benchmarks.peers compares, all on the same problem.

Peers are libraries that a user would choose instead. They expect scores and get a one for the
teacher's class and zeros, so that nothing else leaks. Each runs until the budget of its pairs is
spent, with its default settings except for those given here. A library is imported only when one of
its attacks runs.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers.measuring_teacher import BudgetSpent, MeasuringTeacher, recorded
from benchmarks.peers.paper_procedure import paper_search
from benchmarks.peers.problem import Problem
from db3kd.boundary import (
    TOLERANCE_WITH_SURROGATE,
    Boundary,
    Rays,
    SignOptSettings,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Search

_NO_END = 10**6
"""More steps than any budget allows, so that the budget ends each peer."""


@dataclass(frozen=True)
class Task:
    """What an attack is given.

    Attributes:
        problem: The pairs.
        measuring: The teacher that answers, counts and times.
        budget: The most queries of a pair.
        seed: Seeds everything random.
    """

    problem: Problem
    measuring: MeasuringTeacher
    budget: int
    seed: int


Attack = Callable[[Task], list[str]]
"""Runs a task and returns the errors that ended searches early."""


def db3kd(
    task: Task,
    *,
    mixup_rounds: int,
    tolerance: float,
    sign_opt: SignOptSettings | None,
    surrogate: str | None = None,
) -> list[str]:
    """Runs BD of all pairs at once, or MBD if `sign_opt` is given.

    Args:
        task: The task.
        mixup_rounds: Mixup rounds of BD.
        tolerance: The relative width of a bracket.
        sign_opt: Settings of the descent.
        surrogate: The architecture of the surrogate's networks, if there is one.

    Returns:
        No errors.
    """
    guess = None if surrogate is None else task.problem.surrogate(surrogate)
    relative = tolerance if guess is None else TOLERANCE_WITH_SURROGATE
    pairs, ledger = task.problem.pairs, Ledger(torch.full((len(task.problem),), task.budget))
    count = task.problem.starts.shape[1]

    def search() -> Search[Boundary]:
        ends = task.problem.starts.flatten(0, 1).flatten(1)
        number = torch.arange(len(ends))
        rays = Rays.towards(pairs, ends, number // count, number).shortest_first()
        boundary = yield from boundary_distance(
            pairs,
            rays,
            mixup_rounds=mixup_rounds,
            relative=relative,
            budget=ledger,
            surrogate=guess,
        )
        if sign_opt is not None:
            yield from minimal_boundary_distance(
                pairs, boundary, task.problem.image_shape, sign_opt,
                seed=task.seed, query_batch_size=2048, budget=ledger, surrogate=guess,
            )  # fmt: skip
        return boundary

    with task.measuring.searching():
        run(recorded(search(), task.measuring), task.measuring, ledger)
    return []


def paper(task: Task, *, sign_opt: bool) -> list[str]:
    """Runs the paper's procedure, one pair after the other."""
    problem = task.problem

    def attack(pair: int) -> None:
        decide = _scalar_teacher(task, pair)
        paper_search(
            decide,
            problem.samples[pair].flatten().numpy(),
            int(problem.source[pair]),
            int(problem.target[pair]),
            problem.starts[pair].flatten(1).numpy(),
            task.budget,
            np.random.default_rng([task.seed, pair]),
            sign_opt=sign_opt,
        )

    return run_pair_by_pair(task, attack)


def foolbox(task: Task, *, attack: str, **settings: object) -> list[str]:
    """Runs Foolbox's attack of that name on all pairs at once, from one starting point each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # foolbox imports names that SciPy deprecates
        import foolbox

    problem, measuring = task.problem, task.measuring
    accounts = np.arange(len(problem))

    class Scores(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            decisions = measuring.ask(images, accounts)
            return F.one_hot(decisions, measuring.classes).float()

    torch.manual_seed(task.seed)
    model = foolbox.PyTorchModel(Scores().eval(), bounds=measuring.bounds, device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(problem.target)
    runner = getattr(foolbox.attacks, attack)(steps=_NO_END, **settings)
    starts = problem.starts[:, 0].contiguous()

    def search() -> None:
        runner(model, problem.samples, criterion, epsilons=None, starting_points=starts)

    return _searched(task, search)


def art_hop_skip_jump(task: Task, **settings: object) -> list[str]:
    """Runs ART's HopSkipJump, one pair after the other, from one starting point each."""
    from art.attacks.evasion import HopSkipJump

    def attack(pair: int) -> None:
        classifier = _art_classifier(task, pair)
        runner = HopSkipJump(
            classifier, batch_size=task.measuring.max_batch, targeted=True, norm=2,
            max_iter=_NO_END, verbose=False, **settings,
        )  # fmt: skip
        image, target = _as_arrays(task.problem, pair)
        runner.generate(image, y=target, x_adv_init=task.problem.starts[pair, :1].numpy())

    return run_pair_by_pair(task, attack)


def art_sign_opt(task: Task) -> list[str]:
    """Runs ART's Sign-OPT, one pair after the other, from all starting points of each."""
    from art.attacks.evasion import SignOPTAttack

    def attack(pair: int) -> None:
        runner = SignOPTAttack(
            _art_classifier(task, pair), targeted=True, max_iter=_NO_END, query_limit=_NO_END,
            verbose=False,
        )  # fmt: skip
        image, target = _as_arrays(task.problem, pair)
        runner.generate(image, y=target, x_init=task.problem.starts[pair].numpy())

    return run_pair_by_pair(task, attack)


def _art_classifier(task: Task, pair: int) -> object:
    from art.estimators.classification import BlackBoxClassifier

    measuring, shape = task.measuring, task.problem.image_shape

    def scores(images: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        decisions = measuring.ask(batch, np.full(len(batch), pair))
        return F.one_hot(decisions, measuring.classes).float().numpy()

    return BlackBoxClassifier(scores, shape, measuring.classes, clip_values=measuring.bounds)


def _as_arrays(problem: Problem, pair: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The image and the target of a pair, as batches of one."""
    return problem.samples[pair : pair + 1].numpy(), problem.target[pair : pair + 1].numpy()


def _scalar_teacher(task: Task, pair: int) -> Callable[[NDArray], NDArray]:
    shape = task.problem.image_shape

    def decide(images: NDArray[np.float32]) -> NDArray[np.int64]:
        batch = torch.from_numpy(images).view(len(images), *shape)
        return task.measuring.ask(batch, np.full(len(images), pair)).numpy()

    return decide


def run_pair_by_pair(task: Task, attack: Callable[[int], None]) -> list[str]:
    """Runs a peer that takes one pair at a time.

    Args:
        task: The task.
        attack: Attacks the pair of that number.

    Returns:
        The errors that ended searches early.
    """
    errors = []
    for pair in range(len(task.problem)):
        np.random.seed(task.seed + pair)  # ART uses NumPy's global generator
        errors += _searched(task, partial(attack, pair))
    return errors


def _searched(task: Task, search: Callable[[], None]) -> list[str]:
    """Runs one search. If the peer fails, what it had found still counts."""
    with task.measuring.searching():
        try:
            search()
        except BudgetSpent:
            return []
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
    return []


SURROGATES = {"lenet5": ("lenet5", "lenet5-half"), "resnet8": ("resnet8", "resnet8-half")}
"""Architectures of surrogates by that of the teacher. The name of a search with a surrogate ends
with it, after a comma."""

_MBD = partial(db3kd, mixup_rounds=0, tolerance=1e-3, sign_opt=SignOptSettings())

ATTACKS: dict[str, Attack] = {
    "db3kd BD": partial(db3kd, mixup_rounds=2, tolerance=1e-2, sign_opt=None),
    "db3kd MBD": _MBD,
    **{
        f"db3kd MBD, {model}": partial(_MBD, surrogate=model)
        for models in SURROGATES.values()
        for model in models
    },
    "paper BD": partial(paper, sign_opt=False),
    "paper MBD": partial(paper, sign_opt=True),
    "Foolbox HopSkipJump": partial(foolbox, attack="HopSkipJumpAttack"),
    "Foolbox HopSkipJump 25": partial(
        foolbox, attack="HopSkipJumpAttack", initial_gradient_eval_steps=25
    ),
    "Foolbox Boundary": partial(foolbox, attack="BoundaryAttack"),
    "ART HopSkipJump": art_hop_skip_jump,
    "ART HopSkipJump 25": partial(art_hop_skip_jump, init_eval=25),
    "ART Sign-OPT": art_sign_opt,
}
"""By name. "25" starts with 25 probes a step instead of 100, which suits small budgets better."""

NEEDS = {"Foolbox": "foolbox", "ART": "art"}
"""The package that attacks with such a name need."""
