"""The searches that benchmarks.peers compares, all on the same problem.

Peers are libraries that a user would pick instead. They want scores; they get a one for the class
decided and zeros, so nothing leaks. Each goes on until its pairs' budget is spent, with its own
default settings but for what is said here, and its libraries are imported only where it is run.
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

from benchmarks.peers.measuring_teacher import BudgetSpent, MeasuringTeacher, witnessed
from benchmarks.peers.paper_procedure import published_search
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
"""Steps that a peer never gets to make: the budget ends it before."""


@dataclass(frozen=True)
class Task:
    """What an attack is given. budget: most queries a pair. seed: of everything random."""

    problem: Problem
    witness: MeasuringTeacher
    budget: int
    seed: int


Attack = Callable[[Task], list[str]]
"""Runs a task and returns the errors that ended searches before their budget did."""


def db3kd(
    task: Task,
    *,
    mixup_rounds: int,
    tolerance: float,
    sign_opt: SignOptSettings | None,
    surrogate: str | None = None,
) -> list[str]:
    """BD, and MBD where there is a descent, of all pairs at once. surrogate: its model."""
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

    with task.witness.searching():
        run(witnessed(search(), task.witness), task.witness, ledger)
    return []


def published(task: Task, *, sign_opt: bool) -> list[str]:
    """The paper's procedure, pair after pair."""
    problem = task.problem

    def attack(pair: int) -> None:
        decide = _scalar_teacher(task, pair)
        published_search(
            decide,
            problem.samples[pair].flatten().numpy(),
            int(problem.own[pair]),
            int(problem.target[pair]),
            problem.starts[pair].flatten(1).numpy(),
            task.budget,
            np.random.default_rng([task.seed, pair]),
            sign_opt=sign_opt,
        )

    return pair_after_pair(task, attack)


def foolbox(task: Task, *, attack: str, **settings: object) -> list[str]:
    """Foolbox's attack of that name on all pairs at once, from the nearest image of each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports names that SciPy is about to drop
        import foolbox

    problem, witness = task.problem, task.witness
    accounts = np.arange(len(problem))

    class Scores(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            decisions = witness.ask(images, accounts)
            return F.one_hot(decisions, witness.classes).float()

    torch.manual_seed(task.seed)
    model = foolbox.PyTorchModel(Scores().eval(), bounds=witness.bounds, device="cpu")
    criterion = foolbox.criteria.TargetedMisclassification(problem.target)
    runner = getattr(foolbox.attacks, attack)(steps=_NO_END, **settings)
    starts = problem.starts[:, 0].contiguous()

    def search() -> None:
        runner(model, problem.samples, criterion, epsilons=None, starting_points=starts)

    return _searched(task, search)


def art_hop_skip_jump(task: Task, **settings: object) -> list[str]:
    """ART's HopSkipJump, pair after pair, from the nearest image of each."""
    from art.attacks.evasion import HopSkipJump

    def attack(pair: int) -> None:
        classifier = _art_classifier(task, pair)
        runner = HopSkipJump(
            classifier, batch_size=task.witness.max_batch, targeted=True, norm=2,
            max_iter=_NO_END, verbose=False, **settings,
        )  # fmt: skip
        image, target = _as_arrays(task.problem, pair)
        runner.generate(image, y=target, x_adv_init=task.problem.starts[pair, :1].numpy())

    return pair_after_pair(task, attack)


def art_sign_opt(task: Task) -> list[str]:
    """ART's Sign-OPT, pair after pair, from all images of each."""
    from art.attacks.evasion import SignOPTAttack

    def attack(pair: int) -> None:
        runner = SignOPTAttack(
            _art_classifier(task, pair), targeted=True, max_iter=_NO_END, query_limit=_NO_END,
            verbose=False,
        )  # fmt: skip
        image, target = _as_arrays(task.problem, pair)
        runner.generate(image, y=target, x_init=task.problem.starts[pair].numpy())

    return pair_after_pair(task, attack)


def _art_classifier(task: Task, pair: int) -> object:
    from art.estimators.classification import BlackBoxClassifier

    witness, shape = task.witness, task.problem.image_shape

    def scores(images: NDArray[np.float32]) -> NDArray[np.float32]:
        batch = torch.from_numpy(np.ascontiguousarray(images, np.float32))
        decisions = witness.ask(batch, np.full(len(batch), pair))
        return F.one_hot(decisions, witness.classes).float().numpy()

    return BlackBoxClassifier(scores, shape, witness.classes, clip_values=witness.bounds)


def _as_arrays(problem: Problem, pair: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A pair as a batch of one: the image, and the target."""
    return problem.samples[pair : pair + 1].numpy(), problem.target[pair : pair + 1].numpy()


def _scalar_teacher(task: Task, pair: int) -> Callable[[NDArray], NDArray]:
    shape = task.problem.image_shape

    def decide(images: NDArray[np.float32]) -> NDArray[np.int64]:
        batch = torch.from_numpy(images).view(len(images), *shape)
        return task.witness.ask(batch, np.full(len(images), pair)).numpy()

    return decide


def pair_after_pair(task: Task, attack: Callable[[int], None]) -> list[str]:
    """Runs a peer that takes one pair at a time; `attack` takes its number."""
    errors = []
    for pair in range(len(task.problem)):
        np.random.seed(task.seed + pair)  # ART draws from NumPy's global state
        errors += _searched(task, partial(attack, pair))
    return errors


def _searched(task: Task, search: Callable[[], None]) -> list[str]:
    """One search; a peer's own failure ends it, and what it found until then counts."""
    with task.witness.searching():
        try:
            search()
        except BudgetSpent:
            return []
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
    return []


SURROGATES = ("lenet5", "lenet5-half")
"""Models that a descent may begin with, after a comma in its name."""

_MBD = partial(db3kd, mixup_rounds=0, tolerance=1e-3, sign_opt=SignOptSettings())

ATTACKS: dict[str, Attack] = {
    "db3kd BD": partial(db3kd, mixup_rounds=2, tolerance=1e-2, sign_opt=None),
    "db3kd MBD": _MBD,
    **{f"db3kd MBD, {model}": partial(_MBD, surrogate=model) for model in SURROGATES},
    "published BD": partial(published, sign_opt=False),
    "published MBD": partial(published, sign_opt=True),
    "Foolbox HopSkipJump": partial(foolbox, attack="HopSkipJumpAttack"),
    "Foolbox HopSkipJump 25": partial(
        foolbox, attack="HopSkipJumpAttack", initial_gradient_eval_steps=25
    ),
    "Foolbox Boundary": partial(foolbox, attack="BoundaryAttack"),
    "ART HopSkipJump": art_hop_skip_jump,
    "ART HopSkipJump 25": partial(art_hop_skip_jump, init_eval=25),
    "ART Sign-OPT": art_sign_opt,
}
"""By name. "25" begins with as many probes a step, not 100, which suits small budgets better."""

NEEDS = {"Foolbox": "foolbox", "ART": "art"}
"""The package that names beginning so need."""
