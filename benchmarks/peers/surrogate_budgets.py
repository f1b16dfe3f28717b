"""What the queries of a surrogate's training are worth, by numbers of images and queries per pair.

A run labels its own images: surrogates are trained on them, and they are the starting points. For
each number of images, the same pairs are measured by MBD without a surrogate and with surrogates of
different numbers of training queries, at most nine per image unless there are too few. Every number
of queries per pair is a search of its own, because it determines the starting points. The result is
the mean distance over the mean of the white-box optimum, without the surrogate's own queries.
With `--classes 3 8`, each pair is a test image of class 3 and the class 8.

    python -m benchmarks.peers.surrogate_budgets --data DIR --teacher FILE
"""

import argparse
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.peers.class_pairs import class_pairs
from benchmarks.peers.run_surrogate import train_run_surrogate
from benchmarks.peers.whitebox import minimum_norm
from db3kd.boundary import Pairs, Surrogate
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.data.sample_choice import draw_samples
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.settings import LabelSettings
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.teachers import decide_checked

_PER_IMAGE = 9


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one number of images.

    Attributes:
        images: The images of the run, which are also the starting points.
        decisions: [N] int64, their classes.
        pairs: The measured pairs.
        optimum: The mean of the white-box distances.
    """

    images: ImageSet
    decisions: Tensor
    pairs: Pairs
    optimum: float


def main() -> None:
    """Measures and prints one row for each number of images and training queries."""
    options = _options()
    trained = trained_teacher(options)
    source = trained.train if options.labelled is None else load_data(options.labelled)
    rows = []
    for count in options.images:
        measured = _pairs(trained, source, count, options)
        print(f"{count} images, {len(measured.pairs)} pairs, optimum {measured.optimum:.3f}")
        for queries in (0, *options.training):
            start = time.perf_counter()
            surrogate, agreement, spent = _surrogate(trained, measured, queries, options)
            curve = {each: _ratio(trained, measured, each, surrogate) for each in options.queries}
            seconds = time.perf_counter() - start
            rows.append({"images": count, "training": spent, "agreement": agreement} | curve)
            found = "" if agreement is None else f" (agreement {agreement:.1%})"
            shown = "  ".join(f"{each}: {ratio:.3f}" for each, ratio in curve.items())
            print(f"  {spent:6,} queries{found}: {shown}   {seconds:.0f} s", flush=True)
    keep(options, {"data": source.name, "teacher_accuracy": trained.accuracy, "rows": rows})


def _pairs(
    trained: TrainedTeacher, source: ImageSet, count: int, options: argparse.Namespace
) -> _Pairs:
    """Draws the images of a run, and the pairs that are measured."""
    images = source.subset(draw_samples(len(source), count, options.seed))
    samples = images.read(torch.arange(count))
    decisions = decide_checked(trained.teacher, samples)
    if options.classes is None:
        pairs = _drawn_pairs(samples, decisions, trained.classes, options)
    else:
        source_class, target_class = options.classes
        pairs = class_pairs(trained, source_class, target_class, options.pairs)
    measured = pairs.samples.view(-1, *images.image_shape)
    optimum = minimum_norm(trained.network, measured, pairs.criterion_class)
    return _Pairs(images, decisions, pairs, optimum.mean().item())


def _drawn_pairs(
    samples: Tensor, decisions: Tensor, classes: int, options: argparse.Namespace
) -> Pairs:
    """Draws pairs of images with other classes that occur among their decisions."""
    possible = torch.zeros(len(samples), classes, dtype=torch.bool)
    possible[:, decisions.unique()] = True
    possible[torch.arange(len(samples)), decisions] = False
    index, target = possible.nonzero(as_tuple=True)
    drawn = draw_samples(len(index), options.pairs, options.seed)
    index, target = index[drawn], target[drawn]
    return Pairs(samples[index].flatten(1), index, torch.arange(len(index)), target)


def _surrogate(
    trained: TrainedTeacher, measured: _Pairs, queries: int, options: argparse.Namespace
) -> tuple[Surrogate | None, float | None, int]:
    """Trains a surrogate as a label run does, with at most so many queries; None for 0."""
    if not queries:
        return None, None, 0
    made = train_run_surrogate(
        trained.teacher,
        measured.images,
        measured.decisions,
        queries,
        model=options.model,
        networks=options.networks,
        steps=options.steps,
        seed=options.seed + 1,
        per_image=options.per_image,
        point_share=options.point_share,
    )
    surrogate = Surrogate(made.network, trained.teacher.image_shape, trained.classes)
    return surrogate, made.agreement, made.queries


def _ratio(
    trained: TrainedTeacher, measured: _Pairs, queries: int, surrogate: Surrogate | None
) -> float:
    """Measures the pairs with so many queries each; returns the mean over the optimum."""
    labeller = Labeller(
        trained.teacher,
        measured.images,
        LabelSettings(queries_per_pair=queries),
        measured.decisions,
        torch.full((len(measured.images),), queries * trained.classes),
        surrogate,
    )
    ledger = Ledger(torch.full((len(measured.pairs),), queries))
    search = labeller.search(measured.pairs, ledger)
    distance = run(search, trained.teacher, ledger).distance
    return (distance.mean() / measured.optimum).item()


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[10, 30, 100, 1000])
    options.add_argument("--training", type=int, nargs="+", default=[500, 2000, 5000])
    options.add_argument("--queries", type=int, nargs="+", default=[5, 10, 25, 50, 100, 250, 1000])
    options.add_argument("--labelled", help="images to label that the teacher was not trained on")
    options.add_argument("--pairs", type=int, default=60, help="at most")
    options.add_argument(
        "--classes",
        type=int,
        nargs=2,
        metavar=("SOURCE", "TARGET"),
        help="measure test images of SOURCE with class TARGET, instead of pairs of the images",
    )
    options.add_argument("--per-image", type=int, default=_PER_IMAGE, help="training queries")
    options.add_argument(
        "--point-share",
        type=float,
        default=0.5,
        help="share of the training queries that ask about points near the surrogate's boundaries",
    )
    options.add_argument("--model", default="lenet5", help="the surrogate's architecture")
    options.add_argument("--networks", type=int, default=AutoSurrogate.networks)
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    return options.parse_args()


if __name__ == "__main__":
    main()
