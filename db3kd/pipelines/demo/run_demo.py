"""The demo: a teacher, a student trained within a budget, and other strategies at that budget."""

import time
from functools import partial
from pathlib import Path

from torch import nn

from db3kd.argument_types import check_path, check_type
from db3kd.data.class_labels import true_classes
from db3kd.data.image_set import ImageSet
from db3kd.distillation.white_box import train_white_box
from db3kd.labelling.sample_choice import draw_images
from db3kd.labelling.source import Source
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.comparison.compare import compare
from db3kd.pipelines.demo.report import (
    STUDENTS_FOLDER,
    TEACHER_FILE,
    DemoResult,
    write_demo_report,
)
from db3kd.pipelines.demo.settings import DemoSettings
from db3kd.pipelines.training_display import show_training
from db3kd.progress import show_progress
from db3kd.report import ComparedStudent, ComparisonRow
from db3kd.report.extras import check_report_packages
from db3kd.storage.existing_runs import check_free
from db3kd.teachers import ModuleTeacher
from db3kd.training.evaluation import evaluate, predict, share_equal
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier

_WHITE_BOX = "white box: needs the teacher's logits"


def run_demo(settings: DemoSettings, out: str | Path) -> DemoResult:
    """Runs the demo and writes its report.

    The folder also holds the teacher and the run of each student, which other commands can use.

    Args:
        settings: The sizes of the demo.
        out: The folder to write to.

    Returns:
        What the demo measured, and the path of its report.
    """
    check_report_packages()
    check_type(settings, DemoSettings, "settings", "DemoSettings")
    out = check_path(out, "out")
    # The teacher of an existing demo must not be replaced.
    check_free(out, can_resume=False)
    train, test = (Source(settings.data, split).load() for split in ("train", "test"))
    out.mkdir(parents=True, exist_ok=True)
    network = _train_teacher(settings, train, out / TEACHER_FILE)
    images = draw_images(train, settings.images, settings.seed).with_labels(None, None)
    teacher = ModuleTeacher(network, train.image_shape, true_classes(train)[1], name=TEACHER_FILE)
    comparison = compare(
        teacher,
        images,
        budget=settings.budget,
        strategies=settings.strategies,
        student=settings.student,
        seeds=settings.seeds,
        settings=settings.distillation,
        out=out / STUDENTS_FOLDER,
        test=test,
    )
    result = DemoResult(
        settings=settings,
        folder=out,
        teacher_accuracy=evaluate(network, test, true_classes(test)[0]),
        train_images=len(train),
        test_images=len(test),
        comparison=comparison,
        white_box=_white_box(settings, network, images, test, comparison.steps),
    )
    write_demo_report(result)
    return result


def _train_teacher(settings: DemoSettings, train: ImageSet, file: Path) -> nn.Module:
    shape, (labels, classes) = train.image_shape, true_classes(train)
    make = partial(build_model, settings.teacher, shape, classes)
    training = TrainSettings(epochs=settings.teacher_epochs, seed=settings.seed, device="cpu")
    with show_progress("training the teacher", training.total_steps(len(train)), "steps") as show:
        network = train_classifier(make, train, labels, training, progress=show)
    save_model(file, network, model=settings.teacher, image_shape=shape, classes=classes)
    return network


def _white_box(
    settings: DemoSettings,
    network: nn.Module,
    images: ImageSet,
    test: ImageSet,
    steps: int,
) -> ComparisonRow:
    """Returns the row of students that see the teacher's logits and train as long as the others."""
    make = partial(build_model, settings.student, images.image_shape, true_classes(test)[1])
    distillation = settings.distillation
    decisions, students = predict(network, test), []
    for number in range(settings.seeds):
        training = distillation.trained_for(steps, max(distillation.learning_rates), number)
        started = time.monotonic()
        with show_training("training the white box", steps) as show:
            student = train_white_box(make, network, images, training, [show])
        seconds = time.monotonic() - started
        predicted = predict(student, test)
        students.append(
            ComparedStudent(
                seed=training.seed,
                queries=None,
                held_out=None,
                accuracy=share_equal(predicted, true_classes(test)[0]),
                test_agreement=share_equal(predicted, decisions),
                seconds=seconds,
            )
        )
    return ComparisonRow(_WHITE_BOX, tuple(students))
