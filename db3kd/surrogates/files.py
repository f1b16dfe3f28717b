"""Surrogates on disk.

A surrogate consists of two files and a folder that share a name:

    surrogate.safetensors   the network, for `load_teacher`
    surrogate.json          its manifest
    surrogate.decisions/    the run folder of the answers it was trained on

The answers, about a byte each, are kept. If the weights are missing, because training was stopped
or another network is wanted, a network is trained on them without a query.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from db3kd.arguments.images import check_bounds
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.data.sample_choice import draw_samples
from db3kd.data.source import Source
from db3kd.data.table_rows import features_of, projection_of
from db3kd.errors import ArgumentError, InputError, OutputExistsError
from db3kd.models import save_model
from db3kd.progress import ProgressListener
from db3kd.querying.kept_answers import noting_kept_answers
from db3kd.querying.single_process import check_single_process
from db3kd.storage.changed_teachers import (
    add_accepted,
    check_accepts_teacher,
    compare_or_accept_teacher,
)
from db3kd.storage.existing_runs import check_output, holds_run
from db3kd.storage.manifest import (
    NAMES,
    TEACHER,
    make_manifest,
    with_current_teacher,
    write_manifest,
)
from db3kd.storage.run_comparison import ExpectedRun, compare_with_runs
from db3kd.storage.run_differences import describe_differences, differences
from db3kd.storage.run_journals import count_answers
from db3kd.storage.run_queries import RunQueries
from db3kd.surrogates.augmented_decisions import AUGMENTED_DECISIONS
from db3kd.surrogates.queries import (
    augment_samples,
    decide_augmented_in_folder,
    query_settings,
)
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.surrogates.training import train_surrogate
from db3kd.teachers import Teacher, describe
from db3kd.teachers.base import class_names_of
from db3kd.teachers.rescaled import takes_unit_images


@dataclass(frozen=True)
class PreparedSurrogate:
    """A surrogate before its first query; made by `prepare_surrogate`.

    Attributes:
        out: The weights file, an absolute path: a teacher may change the working directory.
        teacher: Takes images in [0, 1].
        settings: How the surrogate is made.
        images: All images of the source.
        chosen: Those to query.
        manifest: The manifest of the surrogate.
        answers_manifest: The manifest of the run folder of its answers.
        resume: Whether to continue with existing files.
    """

    out: Path
    teacher: Teacher
    settings: SurrogateSettings
    images: ImageSet
    chosen: ImageSet
    manifest: dict[str, Any]
    answers_manifest: dict[str, Any]
    resume: bool

    @property
    def queries(self) -> int:
        """The exact number of queries."""
        return len(self.chosen) * self.settings.queries_per_sample

    def count_queries(self, *, any_teacher: bool = False) -> RunQueries:
        """Counts the queries of the surrogate on disk; none without files.

        Args:
            any_teacher: Whether the files may be of another teacher.

        Raises:
            ValueError: If the files belong to another surrogate, or if they are damaged.
        """
        self._stored_manifest(any_teacher=any_teacher)
        compare_with_runs([self._expected_answers], any_teacher=any_teacher)
        answered = count_answers(decisions_folder(self.out), AUGMENTED_DECISIONS)
        return RunQueries(answered, finished=self.out.exists())

    def write(
        self,
        *,
        rare_classes: bool = False,
        accept_changed_teacher: bool = False,
        progress: ProgressListener | bool = True,
    ) -> dict[str, Any]:
        """Asks the teacher, trains the surrogate and writes its files.

        Each time the process is killed, at most one call of the teacher is paid for twice. The
        arguments are those of `make_surrogate`.

        Returns:
            The manifest, with `queries`, `agreement` and `held_out` of the `TrainedSurrogate`.

        Raises:
            ValueError: If the files belong to another surrogate, or if they are damaged.
            TeacherError: See `make_surrogate`. Paid answers are kept.
            OSError: If a file cannot be written. Paid answers are kept.
        """
        check_single_process()
        check_accepts_teacher(accept_changed_teacher, self.resume)
        stored = self._stored_manifest(any_teacher=accept_changed_teacher)
        if accept_changed_teacher:
            compare_or_accept_teacher([self._expected_answers], accept_changed_teacher=True)
        if stored is not None:
            if add_accepted(stored, self.manifest):
                write_manifest(manifest_file(self.out), stored)
            return stored
        with noting_kept_answers(self.out, folder=decisions_folder(self.out)):
            decided = decide_augmented_in_folder(
                decisions_folder(self.out),
                self.answers_manifest,
                self.teacher,
                augment_samples(
                    self.chosen, self.settings, projection_of(self.teacher, self.chosen)
                ),
                self.resume,
                rare_classes,
                progress=progress,
            )
            surrogate = train_surrogate(decided, self.teacher.classes, self.settings, progress)
            made = self.manifest | {
                "queries": surrogate.queries,
                "agreement": surrogate.agreement,
                "held_out": surrogate.held_out,
            }
            # The manifest is written first, so that weights never lack one.
            write_manifest(manifest_file(self.out), made)
            save_surrogate(self.out, surrogate.network, self.settings, self.teacher, self.images)
        return made

    @property
    def _expected_answers(self) -> ExpectedRun:
        return ExpectedRun(decisions_folder(self.out), AUGMENTED_DECISIONS, self.answers_manifest)

    def _stored_manifest(self, *, any_teacher: bool) -> dict[str, Any] | None:
        """Returns the manifest of the surrogate on disk, which must be this one; None without."""
        if not self.out.exists():
            return None
        file = manifest_file(self.out)
        damaged = InputError(
            f"{file}: the manifest of {self.out.name} is missing or cannot be read; delete both "
            "files to train the surrogate again from the stored answers"
        )
        try:
            stored: dict[str, Any] = json.loads(file.read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise damaged from error
        if not isinstance(stored, dict):
            raise damaged
        apart_from = (*NAMES, *TEACHER) if any_teacher else NAMES
        found = differences(with_current_teacher(stored), self.manifest, apart_from)
        if found:
            text = describe_differences(found, AUGMENTED_DECISIONS)
            raise InputError(f"{self.out}: holds another surrogate: {text}")
        return stored


def prepare_surrogate(
    out: str | Path,
    teacher: Teacher,
    source: Source,
    settings: SurrogateSettings | None = None,
    *,
    images: ImageSet | None = None,
    limit: int | None = None,
    resume: bool = False,
) -> PreparedSurrogate:
    """Prepares a surrogate from the images of a source, without a query; nothing is written.

    Example:
        >>> prepared = prepare_surrogate("surrogate.safetensors", teacher, Source("digits"))
        >>> print(f"{prepared.queries:,} queries")
        >>> manifest = prepared.write()

    Args:
        out: The weights file, a name ending in .safetensors.
        teacher: The teacher to query.
        source: The images.
        settings: `SurrogateSettings()` by default.
        images: The images of the source, if they are loaded already.
        limit: Use only this many images, drawn at random.
        resume: Whether to continue with existing files. The teacher, the images and the query
            settings must be the same. If the weights exist, nothing is left to do. If they are
            missing, the network is trained, and its training settings may differ.

    Raises:
        FileExistsError: If one of the files exists and `resume` is False.
        ValueError: If images, bounds or model do not fit the teacher.
    """
    out, settings = Path(out), settings or SurrogateSettings()
    check_out(out, resume)
    teacher = takes_unit_images(teacher)
    image_shape = tuple(teacher.image_shape)
    settings = replace(settings, model=settings.model_for(image_shape))
    settings.check_trainable(image_shape, teacher.classes)
    images = source.load() if images is None else images
    chosen = images.subset(draw_samples(len(images), limit, settings.training.seed))
    described = partial(
        make_manifest,
        seed=settings.training.seed,
        teacher_fingerprint=teacher.fingerprint(),
        classes=teacher.classes,
        data_fingerprint=chosen.fingerprint(check=not out.exists()),
    )
    named = {
        "source": source.with_features_of(images),
        "limit": limit,
        "teacher": describe(teacher),
    }
    return PreparedSurrogate(
        out.absolute(),
        teacher,
        settings,
        images,
        chosen,
        manifest=described({**named, "surrogate": settings}),
        answers_manifest=described({**named, **query_settings(settings)}),
        resume=resume,
    )


def save_surrogate(
    out: Path,
    network: nn.Module,
    settings: SurrogateSettings,
    teacher: Teacher,
    images: NamedImages,
) -> None:
    """Writes the weights of a surrogate, for `load_teacher`."""
    image_shape = tuple(teacher.image_shape)
    save_model(
        out,
        network,
        model=settings.surrogate_model(image_shape),
        image_shape=image_shape,
        classes=teacher.classes,
        bounds=check_bounds(teacher.bounds),
        class_names=class_names_of(teacher),
        features=features_of(teacher, images),
    )


def manifest_file(out: Path) -> Path:
    """Returns the path of the manifest of a surrogate."""
    return out.with_suffix(".json")


def decisions_folder(out: Path) -> Path:
    """Returns the path of the run folder of a surrogate's answers."""
    return out.with_suffix(".decisions")


def check_out(out: Path, resume: bool = False) -> None:
    """Checks that a surrogate can be written without overwriting anything.

    Raises:
        ValueError: If the suffix is not .safetensors.
        FileExistsError: If a file exists.
        FileNotFoundError: If there are no files of an earlier run and `resume` is True.
    """
    if out.suffix != ".safetensors":
        raise ArgumentError("out", f"expected a name ending in .safetensors, got {out.name!r}")
    folder = decisions_folder(out)
    if resume and (out.exists() or holds_run(folder)):
        return
    for file in (out, manifest_file(out)):
        if file.exists():
            raise OutputExistsError(f"{file}: already exists; pass another out=")
    check_output(folder, resume, AUGMENTED_DECISIONS.format)
