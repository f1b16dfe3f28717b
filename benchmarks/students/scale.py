"""What it costs to choose the scale of soft labels, and how good the final student is.

Two ways are compared on the labels of a run: `db3kd.choose_scale`, and the grid of 18 students that
db3kd used before (six scales, agreement on held-out images, a fifth of the final steps). Times are
CPU times.

    python -m benchmarks.students.scale --labels runs/mbd [--data DIR]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from benchmarks.common.record import keep
from benchmarks.common.setting import true_labels
from benchmarks.students.label_quality import margins
from db3kd.distillation.label_scale import choose_label_scale
from db3kd.distillation.scale import median_nearest_distance
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.soft_labels import margin_soft_labels
from db3kd.models.networks import build_model
from db3kd.training.evaluation import evaluate, predict, share_equal
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_on_soft_labels

_GRID = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def main() -> None:
    """Measures both ways and writes the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    run = open_run(options.labels, options.data)
    student = partial(build_model, options.model, run.images.image_shape, run.labels.classes)
    training = TrainSettings(steps=options.steps, device="cpu")
    ways = {"before": _choose_on_grid, "now": _choose_now}
    rows = [
        _measure(name, choose, run, student, training, options) for name, choose in ways.items()
    ]
    keep(options, {"images": len(run.images), "data": run.images.name, "ways": rows})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--labels", required=True, help="run folder of db3kd label")
    parser.add_argument("--data", help="the images of the run, if they have moved")
    parser.add_argument("--model", default="lenet5-half")
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of the final students"
    )
    parser.add_argument("--seeds", type=int, default=3, help="final students of each way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", help="write the result to results/NAME.json")
    return parser.parse_args()


def _measure(
    name: str,
    choose: Callable,
    run: LabelRun,
    student: Callable,
    training: TrainSettings,
    options: argparse.Namespace,
) -> dict[str, object]:
    begun = time.process_time()
    relative = choose(run, student, training)
    chosen = time.process_time()
    unit = median_nearest_distance(run.labels.distances, run.labels.decision)
    loss = KDLoss()
    soft = margins(run.labels, relative / unit, loss)
    test = replace(run.source, split="test").load()
    accuracies = []
    for seed in range(options.seeds):
        seeded = replace(training, seed=seed)
        network = train_on_soft_labels(student, run.images, run.labels.decision, soft, loss, seeded)
        accuracies.append(evaluate(network, test, true_labels(test)))
    final = (time.process_time() - chosen) / options.seeds
    mean = statistics.fmean(accuracies)
    print(
        f"{name}: {chosen - begun:.1f} s to choose {relative:g} over the median distance, "
        f"{final:.1f} s a final student, {mean:.2%} of test images "
        f"({', '.join(f'{accuracy:.2%}' for accuracy in accuracies)})",
        flush=True,
    )
    return {
        "way": name,
        "seconds": chosen - begun,
        "final_seconds": final,
        "relative": relative,
        "accuracies": accuracies,
    }


def _choose_now(run: LabelRun, student: Callable, training: TrainSettings) -> float:
    labels = run.labels
    choice = choose_label_scale(student, run.images, labels, KDLoss(), training)
    print("\n".join(choice.describe()))
    return choice.scale * median_nearest_distance(labels.distances, labels.decision)


def _choose_on_grid(run: LabelRun, student: Callable, training: TrainSettings) -> float:
    labels, decided = run.labels, run.labels.decision
    unit = 1 / median_nearest_distance(labels.distances, decided)
    parts = torch.randperm(len(decided), generator=torch.Generator().manual_seed(0)).tensor_split(5)
    means = []
    for relative in _GRID:
        soft = margin_soft_labels(labels.distances, decided, relative * unit, KDLoss().temperature)
        shares = []
        for i in range(3):
            rows = torch.cat([part for k, part in enumerate(parts) if k != i])
            short = replace(training, steps=training.total_steps(len(decided)) // 5, seed=i)
            network = train_on_soft_labels(
                student, run.images, decided, soft, KDLoss(), short, rows=rows
            )
            shares.append(
                share_equal(predict(network, run.images, rows=parts[i]), decided[parts[i]])
            )
        means.append(statistics.fmean(shares))
    smoothed = [
        statistics.fmean(means[max(0, i - 1) : i + 1] + means[i : i + 2]) for i in range(len(_GRID))
    ]
    print(f"agreement by scale: {', '.join(f'{mean:.1%}' for mean in means)}")
    return _GRID[smoothed.index(max(smoothed))]


if __name__ == "__main__":
    main()
