"""Times a labelling run on one device, and the paper's procedure on the same teacher."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.generated import accuracy, generated_images, trained_network
from benchmarks.common.timed_teacher import TimedTeacher
from benchmarks.gpu.activity import measure_activity
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.teachers import ModuleTeacher, Teacher, decide_async_checked, decide_checked

CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """A teacher, the images it learns from and labels, and the budget of a pair.

    `samples` are labelled, and the first `profiled` of them once more under the profiler.
    """

    model: str
    shape: tuple[int, int, int]
    images: int
    samples: int
    profiled: int
    queries_per_pair: int
    steps: int


FULL = (
    Setting("lenet5", (1, 28, 28), 10_000, 2_000, 256, 1_000, 1_000),
    Setting("alexnet", (3, 32, 32), 5_000, 256, 32, 1_000, 500),
    Setting("resnet18", (3, 224, 224), 500, 32, 16, 200, 150),
)
SMALL = (Setting("lenet5-fifth", (1, 8, 8), 200, 4, 2, 30, 100),)

PROJECTED = 60_000
"""The number of samples to which a measured run is projected."""

SNAPSHOTS = (25, 50, 75, 100, 150, 200, 300, 500, 1_000)
"""Budgets at which the run's distances are compared with those of the paper's procedure."""


MAX_STARTS = 201
"""Starting points of a class for the paper's procedure, as many as in the paper."""


@dataclass(frozen=True)
class Prepared:
    """A setting on a device: its teacher, images in host memory, and the teacher's accuracy."""

    setting: Setting
    teacher: ModuleTeacher
    images: Tensor
    accuracy: float

    @classmethod
    def of(cls, setting: Setting, device: torch.device) -> "Prepared":
        """Generates images and trains the teacher of a setting on a device."""
        images, labels = generated_images(setting.shape, CLASSES, setting.images, 0, device)
        network = trained_network(setting.model, images, labels, CLASSES, setting.steps)
        others = generated_images(setting.shape, CLASSES, min(setting.images, 1000), 1, device)
        teacher = ModuleTeacher(network, setting.shape, CLASSES, device=device)
        return cls(setting, teacher, images.cpu(), accuracy(network, *others))


def measure_run(prepared: Prepared) -> dict[str, Any]:
    """Labels the samples of a setting by MBD and times it."""
    setting, device = prepared.setting, prepared.teacher.device
    settings = LabelSettings("mbd", queries_per_pair=setting.queries_per_pair)
    label(
        prepared.teacher, prepared.images, settings, index=torch.arange(2), progress=False
    )  # warm-up
    _reset_memory(device)
    timed = TimedTeacher(prepared.teacher)
    wall, labels = _timed_label(timed, prepared.images, settings, setting.samples)
    in_teacher, queries = timed.seconds(), sum(timed.batches)
    alone = _replay_seconds(prepared.teacher, prepared.images, timed.batches)
    chunks_per_sample = PROJECTED / setting.samples
    result = {
        **asdict(setting),
        "teacher_accuracy": prepared.accuracy,
        "wall": wall,
        "in_teacher": in_teacher,
        "share_in_teacher": in_teacher / wall,
        "teacher_alone": alone,
        "wall_over_teacher_alone": wall / alone,
        "queries": queries,
        "calls": len(timed.batches),
        "samples_per_second": setting.samples / wall,
        "queries_per_second": queries / wall,
        "mean_distance": _mean_distance(labels.distances),
        "peak_device_bytes": _peak_memory(device),
        **_activity(prepared, settings),
        "projected_samples": PROJECTED,
        "projected_wall": wall * chunks_per_sample,
    }
    print(
        f"{setting.model}: {result['share_in_teacher']:.1%} of {wall:.1f} s in the teacher, "
        f"{result['samples_per_second']:,.1f} samples and {result['queries_per_second']:,.0f} "
        f"queries a second; {PROJECTED:,} samples would take {result['projected_wall']:,.0f} s",
        flush=True,
    )
    return result


def _activity(prepared: Prepared, settings: LabelSettings) -> dict[str, Any]:
    """How long the device computes while a few samples are labelled; nothing on a CPU."""
    teacher, images = prepared.teacher, prepared.images
    samples = prepared.setting.profiled
    found = measure_activity(
        teacher, lambda marked: _timed_label(marked, images, settings, samples)
    )
    if "gpu_busy" not in found:
        return found
    wall, _ = _timed_label(teacher, images, settings, samples)
    return {
        **found,
        "profiled_wall": wall,
        "share_gpu_busy": found["gpu_busy"] / wall,
        "share_gpu_busy_in_teacher": found["gpu_busy_in_teacher"] / wall,
    }


def measure_paper_procedure(prepared: Prepared, samples: int, budget: int) -> dict[str, Any]:
    """Compares the paper's procedure on a few samples with db3kd at the same mean distance.

    The seconds per pair of db3kd come from the whole run of the setting, with as many queries per
    pair as it needs to reach the mean distance of the procedure on these pairs. `times_faster` is
    None if it does not reach that distance.

    Args:
        prepared: The teacher and its images.
        samples: Samples, each of which forms a pair with every other class.
        budget: The most queries of a pair, for both.
    """
    theirs = _paper_run(prepared, samples, budget)
    budgets = tuple(count for count in SNAPSHOTS if count < budget)
    settings = LabelSettings("mbd", queries_per_pair=budget, snapshots=budgets)
    ours = label(
        prepared.teacher, prepared.images, settings, index=torch.arange(samples), progress=False
    )
    needed = _budget_for(theirs["mean_distance"], ours, budget)
    enough = LabelSettings("mbd", queries_per_pair=needed or budget)
    wall, _ = _timed_label(prepared.teacher, prepared.images, enough, prepared.setting.samples)
    each = wall / (prepared.setting.samples * (CLASSES - 1))
    result = {
        "pairs": samples * (CLASSES - 1),
        "paper_procedure": theirs,
        "db3kd": {
            "mean_distance": _mean_distance(ours.distances),
            "queries_per_pair_to_match": needed,
            "seconds_per_pair": each,
        },
        "times_faster": theirs["seconds_per_pair"] / each if needed else None,
    }
    print(f"the paper's procedure: {result}", flush=True)
    return result


def _paper_run(prepared: Prepared, samples: int, budget: int) -> dict[str, Any]:
    """Runs the paper's procedure: its mean distance, queries and seconds a pair."""
    from benchmarks.peers.paper_procedure import paper_search

    decide = decide_rows(prepared.teacher)
    rows = prepared.images.flatten(1).numpy()
    classes = decide(rows)
    rng = np.random.default_rng(0)
    distances, queries = [], 0
    start = time.perf_counter()
    for sample, target in _pairs(classes[:samples]):
        starts = rows[classes == target][:MAX_STARTS]
        if not len(starts):
            continue
        source = int(classes[sample])
        distance, spent = paper_search(
            decide, rows[sample], source, target, starts, budget, rng, sign_opt=True
        )
        distances.append(distance)
        queries += spent
    seconds = time.perf_counter() - start
    return {
        "mean_distance": _mean_distance(torch.tensor(distances)),
        "queries": queries,
        "seconds_per_pair": seconds / max(1, len(distances)),
    }


def decide_rows(teacher: Teacher) -> Callable[[np.ndarray], np.ndarray]:
    """The teacher as the paper's procedure calls it: rows [n, D] in, classes [n] out."""

    def decide(rows: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
        images = images.view(-1, *teacher.image_shape).to(teacher.device)
        return decide_checked(teacher, images).cpu().numpy()

    return decide


def _timed_label(
    teacher: Any, images: Tensor, settings: LabelSettings, samples: int
) -> tuple[float, Labels]:
    """Seconds that it takes to label the first samples, and their labels."""
    start = time.perf_counter()
    labels = label(teacher, images, settings, index=torch.arange(samples), progress=False)
    return time.perf_counter() - start, labels


def _replay_seconds(teacher: Teacher, images: Tensor, batches: list[int], most: int = 400) -> float:
    """Seconds of the teacher alone on the same batches.

    The time is projected from at most `most` batches of blended images, spread over the run. They
    are queued one after another, and the decisions awaited once, so no round trip is counted.
    """
    step = max(1, len(batches) // most)
    chosen = batches[::step]
    pool = images.to(teacher.device)
    number = torch.arange(max(chosen), device=teacher.device)
    asked = (pool[number % len(pool)] + pool[(number * 7 + 1) % len(pool)]) / 2
    teacher.decide(asked[: chosen[0]])
    start = time.perf_counter()
    pending = [decide_async_checked(teacher, asked[:size]) for size in chosen]
    pending[-1].result()
    return (time.perf_counter() - start) * sum(batches) / sum(chosen)


def _pairs(classes: np.ndarray) -> list[tuple[int, int]]:
    """Each sample with every other class."""
    return [
        (sample, target)
        for sample, source in enumerate(classes.tolist())
        for target in range(CLASSES)
        if target != source
    ]


def _budget_for(mean: float, labels: Labels, budget: int) -> int | None:
    """The fewest queries per pair at which the labels' mean distance is at most `mean`, if any."""
    by_budget = {**labels.snapshots, budget: labels.distances}
    for count, distances in sorted(by_budget.items()):
        unreached = distances.isinf().sum() > labels.distances.isinf().sum()
        if not unreached and _mean_distance(distances) <= mean:
            return count
    return None


def _mean_distance(distances: Tensor) -> float:
    """The mean distance over the classes reached, without the predicted ones."""
    return float(distances[distances.isfinite() & (distances > 0)].double().mean())


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
