"""What distillations take: a teacher for images in [0, 1], and images in its numbering.

Arguments are checked before the first query, so that no run fails after it has been paid for.
"""

import logging
from collections.abc import Callable

from db3kd.arguments.images import check_shape_of_images
from db3kd.arguments.plain import (
    RUN_SEED_BITS,
    check_flag,
    check_not_negative,
    check_path,
    check_seed,
    check_type,
)
from db3kd.data.arguments import ImagesLike, TeacherLike, as_images, as_teacher
from db3kd.data.class_names import OtherClassesError, check_labels_of, matched
from db3kd.data.files.splits import MissingSplitError
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import TensorImages
from db3kd.data.table_rows import features_of
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.querying.consistency import check_consistency_checks
from db3kd.querying.single_process import check_single_process
from db3kd.report.extras import check_report_packages
from db3kd.tables.checks import InvalidValueError
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images
from db3kd.training.process import check_can_train
from db3kd.wording import input_noun

_LOG = logging.getLogger(__name__)


def convert_inputs(
    teacher: TeacherLike, images: ImagesLike | None, test: ImagesLike | None = None
) -> tuple[Teacher, ImageSet | None]:
    """Returns the teacher for images in [0, 1], and the images as an image set.

    The teacher may be a torch module, which takes the images as they are.

    Raises:
        TypeError: If the type of the teacher or the images is not supported.
        ValueError: If rows of a table were encoded with features that differ from the teacher's or
            from each other's.
    """
    image_set = None if images is None else convert_images(images, "images", teacher)
    converted = takes_unit_images(as_teacher(teacher, image_set))
    features_of(converted, image_set, test)  # raises if they differ
    return converted, image_set


def check_images(images: ImageSet, teacher: Teacher) -> ImageSet:
    """Returns images to query, in the teacher's numbering of the classes, after checks.

    Their labels are not used for training. If their classes are not the teacher's, the labels are
    dropped, and a warning is logged.

    Raises:
        ValueError: If the shape or a value of an image does not fit the teacher.
    """
    _check_pixels(images, teacher, "images")
    try:
        found = matched(images, teacher)
        check_labels_of(found, teacher, "images")
    except ValueError as error:
        _LOG.warning("the labels of %s are ignored: %s", images.name, error)
        return images.with_labels(None)
    return found


def check_test_images(test: ImageSet, teacher: Teacher) -> ImageSet:
    """Returns test images in the teacher's numbering of the classes, after checks.

    Raises:
        ValueError: If the shape, a value or a label of an image does not fit the teacher.
    """
    _check_pixels(test, teacher, "test")
    found = matched(test, teacher)
    check_labels_of(found, teacher, "test")
    return found


def usable_test_split(
    load: Callable[[], ImageSet], prepare: Callable[[ImageSet], ImageSet]
) -> ImageSet | None:
    """Returns the test split of a data set if nobody named test images; None without a usable one.

    Most data sets have no test split, or one without labels or of other classes. If it is unusable
    for any other reason, a warning says so.

    Args:
        load: Loads the test split.
        prepare: Checks its images, which have labels, and renumbers their classes.
    """
    try:
        test = load()
        return None if test.labels is None else prepare(test)
    except (MissingSplitError, OtherClassesError):
        return None
    except (ValueError, FileNotFoundError) as error:
        _LOG.warning("no accuracy is measured, because the test split is unusable: %s", error)
        return None


def check_test(test: ImagesLike, teacher: Teacher) -> ImageSet:
    """Returns labelled test images in the teacher's numbering of the classes, after checks.

    Raises:
        TypeError: If their type is not supported.
        ValueError: If they have no labels, or if `check_test_images` rejects them.
    """
    images = convert_images(test, "test", teacher)
    if images.labels is None:
        make = "from_arrays(images, labels)"
        if images.features is not None:
            make = 'from_table(table, table["the column of classes"], features)'
        noun = input_noun(images.image_shape)
        raise ArgumentError(
            "test",
            f"expected labelled {noun}s, got {noun}s without labels; pass "
            f"db3kd.ImageSet.{make}, or no test {noun}s",
        )
    return check_test_images(images, teacher)


def check_plain_arguments(
    settings: DistillSettings | None,
    price_per_1000: float | None,
    out: object,
    resume: bool,
) -> DistillSettings:
    """Checks what `distill` and `compare` take besides teacher, images and callbacks.

    Returns:
        The settings, or the default ones.

    Raises:
        TypeError: If an argument has another type.
        ImportError: If a package that reports need is missing.
        ValueError: If the price is not a number of at least 0, if the seed is too large, if the
            training is not possible here (see `check_can_train`), or if a launcher started several
            processes, each of which would query the teacher.
    """
    check_single_process()
    check_report_packages()
    settings = DistillSettings() if settings is None else settings
    advice = "use DistillSettings(training=TrainSettings(...))"
    check_type(settings, DistillSettings, "settings", "DistillSettings", advice)
    check_seed(settings.training.seed, "settings.training.seed", bits=RUN_SEED_BITS)
    check_can_train(settings.training.device, settings.training.precision)
    if price_per_1000 is not None:
        check_not_negative(price_per_1000, "price_per_1000")
    if out is not None:
        check_path(out, "out")  # type: ignore[arg-type]  # this is what is checked
    check_flag(resume, "resume")
    return settings


def check_rare_classes(rare_classes: bool, images: object) -> None:
    """Checks the argument `rare_classes` of `distill` and `compare`.

    Raises:
        TypeError: If it is neither True nor False.
        ValueError: If it is True without images, for which no such check is made.
    """
    if check_flag(rare_classes, "rare_classes") and images is None:
        raise ArgumentError(
            "rare_classes",
            "needs images or rows; it has no effect on pseudo samples, so leave it out",
        )


def check_repeated_answers(checks: int, images: object, resume: bool) -> None:
    """Checks the argument `consistency_checks` of `distill` and `compare`.

    Raises:
        ValueError: If it is not an integer of at least 0, or if no answers could be repeated.
    """
    check_consistency_checks(checks, resume)
    if checks and images is None:
        raise ArgumentError(
            "consistency_checks",
            "needs images; the answers about pseudo samples are not repeated, so leave it out",
        )


def _check_pixels(images: ImageSet, teacher: Teacher, name: str) -> None:
    shape = images.image_shape
    check_shape_of_images(shape, teacher.image_shape, images.name, name, images.reading)
    images.check()


def convert_images(images: ImagesLike, name: str, teacher: TeacherLike) -> ImageSet:
    """Returns images as an image set, with or without labels.

    `name` is the argument that errors name.

    Raises:
        TypeError: If their type is not supported.
        ValueError: If a row of a table has an invalid value.
    """
    try:
        converted = as_images(images, teacher=teacher)
    except ArgumentTypeError as error:
        problem = error.problem if error.argument == "images" else str(error)
        raise ArgumentTypeError(name, problem) from error.__cause__
    except InvalidValueError as error:
        raise ArgumentError(name, str(error)) from None
    if isinstance(converted, TensorImages):
        converted = ImageSet.from_arrays(converted.tensor.cpu().numpy(), name=name)
    elif not isinstance(converted, ImageSet):
        raise ArgumentTypeError(
            name, f"expected an image set, an array or a data set, got {type(images).__name__}"
        )
    if converted is images:
        return converted
    return converted.subset(range(len(converted)), f"passed in Python as {type(images).__name__}")
