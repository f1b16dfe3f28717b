"""The demo: a teacher of a built-in data set, and students that several strategies make of it."""

from dataclasses import dataclass
from pathlib import Path

from db3kd.arguments.plain import SEVERAL_RUNS_SEED_BITS, check_flag, check_path, check_seed
from db3kd.data.sample_choice import draw_images
from db3kd.data.source import Source
from db3kd.pipelines.comparison.compare import Comparison, compare
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.teacher_training import train_teacher
from db3kd.report.extras import check_report_packages
from db3kd.storage.existing_runs import check_free
from db3kd.teachers import load_teacher
from db3kd.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """What the demo trains: networks by name, and numbers of images, queries and steps.

    The teacher learns the whole train split; students learn from `images` of it without labels.
    """

    data: str
    teacher: str
    epochs: int
    student: str
    images: int
    budget: int
    steps: int
    batch_size: int


_FULL = _Sizes(
    data="mnist5k",
    teacher="lenet5",
    epochs=10,
    student="lenet5-half",
    images=1_000,
    budget=10_000,
    steps=400,
    batch_size=128,
)
_QUICK = _Sizes(
    data="digits",
    teacher="linear",
    epochs=30,
    student="linear",
    images=100,
    budget=400,
    steps=30,
    batch_size=32,
)


def run_demo(out: str | Path, *, quick: bool = False, seed: int = 0) -> Comparison:
    """Trains a teacher, and compares students of its decisions by five strategies at one budget.

    The teacher learns mnist5k. The students learn from 1,000 of its images without their labels,
    or from none, and at most 10,000 queries each. Training is short, so that the demo takes only
    minutes; `distill` trains longer.

    Example:
        >>> print(run_demo("runs/demo").table)

    Args:
        out: A new or an empty folder. The teacher is written to it as teacher.safetensors, and the
            comparison to its subfolder "comparison", with a report and the run of each student.
        quick: Whether to use tiny sizes, to test the installation in seconds.
        seed: Seed of all random numbers.

    Returns:
        The comparison.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If the seed is out of range.
        FileExistsError: If `out` is a file, or a folder with files.
    """
    check_report_packages()
    out, sizes = check_path(out, "out"), _QUICK if check_flag(quick, "quick") else _FULL
    seed = check_seed(seed, bits=SEVERAL_RUNS_SEED_BITS)
    # The teacher of an existing demo must not be replaced.
    check_free(out, can_resume=False)
    train, test = (Source(sizes.data, split).load() for split in ("train", "test"))
    file = out / "teacher.safetensors"
    taught = TrainSettings(epochs=sizes.epochs, seed=seed, device="cpu")
    train_teacher(train, sizes.teacher, taught, file)
    training = TrainSettings(
        steps=sizes.steps, batch_size=sizes.batch_size, seed=seed, device="cpu"
    )
    return compare(
        load_teacher(file, device="cpu"),
        draw_images(train, sizes.images, seed).with_labels(None, None),
        budget=sizes.budget,
        strategies=("auto", "augmented", "decisions", "mbd", "zero-shot"),
        student=sizes.student,
        seeds=1,
        settings=DistillSettings(training=training),
        out=out / "comparison",
        test=test,
    )
