"""Surrogates: networks of ours that learnt a teacher's decisions and say where its boundaries may
lie.

A surrogate learns from augmented images, which lie on all sides of the boundaries where the samples
themselves lie on one. Written, it is three things:

    surrogate.safetensors   the network, as `load_teacher` reads it
    surrogate.json          how it came about
    surrogate.decisions/    the run of the answers it learnt from (see db3kd.storage.run_folder)

The answers are all that was paid for, at about a byte each, so they stay: where the weights are
missing, whether training was stopped or they were removed to train another network, resuming makes
them without a query.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from db3kd.data.arguments import as_images, as_teacher
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import TensorImages
from db3kd.distillation.augmentation import AugmentedImages
from db3kd.distillation.augmented_decisions import AUGMENTED_DECISIONS, read_decisions, to_table
from db3kd.distillation.baselines import AugmentedDecisions, rows_with_clean_share
from db3kd.distillation.student import agreement, train_classifier
from db3kd.distillation.training import StepCallback, TrainSettings
from db3kd.labelling.sample_choice import draw_samples
from db3kd.labelling.source import Source
from db3kd.models import save_model
from db3kd.models.networks import build_model, check_model
from db3kd.progress import Progress, show_progress
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import fitting_batch_size, query_in_batches
from db3kd.storage.journal import Journal
from db3kd.storage.manifest import NAMES, differences, make_manifest, write_manifest
from db3kd.storage.run_folder import RunFolder, check_free, holds_run
from db3kd.storage.shards import read_shards
from db3kd.teachers import Teacher, TeacherError, describe
from db3kd.teachers.base import class_names_of
from db3kd.teachers.rescaled import check_scaled, takes_unit_images
from db3kd.validation import check_count, interval_text

if TYPE_CHECKING:
    pass

HELD_OUT_SHARE = 0.05
"""Of the samples, to measure a surrogate on; at least one."""

_SHARD_ROWS = 2**16
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class SurrogateSettings:
    """How a surrogate is made, and what that costs.

    model: its architecture, as `build_model` takes it.
    queries_per_sample: images of each sample that are asked about, itself included: exactly that
        many queries.
    clean_share: of what it is trained on, the samples themselves; see `rows_with_clean_share`.
    training: with a number of steps, and a seed, which also draws the images and what is held out.
    """

    model: str = "lenet5"
    queries_per_sample: int = 10
    clean_share: float = 0.5
    training: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000))

    def __post_init__(self) -> None:
        check_count(self.queries_per_sample, "queries_per_sample")
        if not 0 <= self.clean_share < 1:
            raise ValueError(
                f"clean_share: expected at least 0 and below 1, got {self.clean_share}"
            )
        if self.training.steps is None:
            raise ValueError("training.steps: expected a number, got None")


@dataclass(frozen=True)
class TrainedSurrogate:
    """A network that decides much as its teacher does.

    network: from images [N, *image_shape] to scores [N, classes], in eval mode.
    agreement: the share, 0 to 1, of held-out images, samples and augmented ones, on which it
        decides like the teacher; None where nothing was held out.
    queries: that its decisions cost.
    """

    network: nn.Module
    agreement: float | None
    queries: int


def make_surrogate(
    teacher: Teacher | nn.Module,
    images: ImageSet | Tensor | np.ndarray,
    settings: SurrogateSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
) -> TrainedSurrogate:
    """Asks a teacher about augmented images, and trains a network on what it answers.

    images: N ≥ 2 of the teacher's image shape, [C, H, W], in [0, 1]; exactly `N ·
    settings.queries_per_sample` queries. Equal arguments give equal weights.

    out: a run folder in which each answer is kept, so that an error, an interrupt or another
    network costs none of them twice. resume: go on with the answers there, if there are any, after
    checking that they are of the same teacher, images and settings.

    Raises ValueError for images, bounds or a model that do not fit the teacher, and TeacherError
    where it fails, or puts all images in one class: then there is nothing to learn.
    """
    if resume and out is None:
        raise ValueError("resume: belongs to out=, the folder to resume")
    settings, images = settings or SurrogateSettings(), as_images(images)
    teacher = as_teacher(teacher, images)
    if isinstance(images, Tensor):
        check_scaled(images, teacher)
    else:
        teacher = takes_unit_images(teacher)
    check_model(settings.model, tuple(teacher.image_shape), teacher.classes)
    augmented = augment(images, settings)
    if out is None:
        asked = ask_augmented(teacher, augmented)
    else:
        source = TensorImages(images) if isinstance(images, Tensor) else images
        described = make_manifest(
            {
                "source": {"data": source.name},
                "limit": None,
                "teacher": describe(teacher),
                **_asking(settings),
            },
            seed=settings.training.seed,
            teacher_fingerprint=teacher.fingerprint(),
            data_fingerprint=source.fingerprint(),
        )
        asked = _ask_into(Path(out), described, teacher, augmented, resume)
    return train_surrogate(asked, teacher.classes, settings)


def augment(images: ImageSet | Tensor, settings: SurrogateSettings) -> AugmentedImages:
    """What a surrogate of these settings is to learn from, and behind that what is held out.

    The samples come in an order drawn by the seed, for a set may be sorted by class. The last of
    them are held out: they are no partners, so nothing of them is in what is trained on.
    """
    count, seed = len(images), settings.training.seed
    if count < 2:
        raise ValueError(
            f"images: expected at least 2, one to train on and one to hold out, got {count}"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if isinstance(images, ImageSet):
        images.check()
    drawn = images[order] if isinstance(images, Tensor) else images.subset(order)
    held_out = max(1, round(count * HELD_OUT_SHARE))
    return AugmentedImages(drawn, settings.queries_per_sample, seed, partners=count - held_out)


def ask_augmented(
    teacher: Teacher,
    images: AugmentedImages,
    *,
    folder: RunFolder | None = None,
    progress: Progress | None = None,
) -> AugmentedDecisions:
    """The teacher's decision for each image: one query each, and none beside.

    folder: of the kind `AUGMENTED_DECISIONS`; keeps each answer before the teacher is asked again,
    and gives those it has.

    Raises ValueError for images that do not fit the teacher, and TeacherError where it fails, or
    puts all images in one class.
    """
    _check_fit(teacher, images)
    decisions = torch.empty(len(images), dtype=torch.int64)
    if folder is not None and folder.has_shards:
        for position, table in read_shards(folder.path, AUGMENTED_DECISIONS):
            known = read_decisions(folder.path, position, table, images, teacher.classes)
            decisions[position : position + len(known)] = known
    on_answers = _counter(progress)
    for rows in torch.arange(len(images)).split(_SHARD_ROWS):
        position = int(rows[0])
        if folder is not None and folder.has_shard(position):
            continue
        with _journal(folder, position, teacher.classes) as journal:
            decisions[rows] = _ask(teacher, images, rows, on_answers, journal)
        if folder is not None:
            folder.write_shard(position, to_table(images, rows, decisions[rows]))
    if len(decisions) > 1 and bool((decisions == decisions[0]).all()):
        raise TeacherError(
            f"teacher {describe(teacher)} put all {len(decisions)} augmented images in class "
            f"{int(decisions[0])}: expected at least two classes, there is no boundary to learn"
        )
    return AugmentedDecisions(images, decisions)


def train_surrogate(
    asked: AugmentedDecisions,
    classes: int,
    settings: SurrogateSettings,
    progress: StepCallback | None = None,
) -> TrainedSurrogate:
    """A network that learnt decisions, measured on those of the samples that are no partners.

    classes: of the teacher. progress: as for `train`.
    """
    images = asked.images
    make = partial(build_model, settings.model, images.image_shape, classes)
    rows = rows_with_clean_share(images, settings.clean_share)
    seen = images.partners * images.queries_per_sample
    network = train_classifier(
        make, images, asked.decisions, settings.training, rows=rows[rows < seen], progress=progress
    )
    alike = None
    if seen < len(images):
        alike = agreement(network, _From(images, seen), asked.decisions[seen:])
    return TrainedSurrogate(network, alike, len(images))


def write_surrogate(
    out: str | Path,
    teacher: Teacher,
    source: Source,
    settings: SurrogateSettings | None = None,
    *,
    limit: int | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Makes a surrogate from the images of a source into a weight file, showing progress.

    out: ends in .safetensors; its manifest, and the folder of the answers, get the same name
    (`manifest_file`, `decisions_folder`). limit: so many of the images, drawn by the seed.

    resume: go on with what is there, after checking that it is of the same teacher, images and
    settings (what they are called may differ). Answers are kept before the teacher is called again,
    so at most one call is paid twice for each time the process was killed. Where the weights are
    there, nothing is done. Where they are not, the network is trained, and its settings may be
    others than before; what was asked may not.

    Returns the manifest: `queries` and `agreement` of the `TrainedSurrogate`, and what made it.

    Raises FileExistsError where something is in the way, ValueError for images, bounds or a model
    that do not fit the teacher or for another surrogate than the one there, TeacherError as
    `make_surrogate`, and OSError where the disk fails. What was answered until then stays.
    """
    out, settings = Path(out), settings or SurrogateSettings()
    check_out(out, resume)
    teacher = takes_unit_images(teacher)
    check_model(settings.model, tuple(teacher.image_shape), teacher.classes)
    images = source.load()
    chosen = images.subset(draw_samples(len(images), limit, settings.training.seed))
    described = partial(
        make_manifest,
        seed=settings.training.seed,
        teacher_fingerprint=teacher.fingerprint(),
        data_fingerprint=chosen.digests(check=not out.exists()).fingerprint,
    )
    named = {"source": source, "limit": limit, "teacher": describe(teacher)}
    made = described({**named, "surrogate": settings})
    if out.exists():
        return _same(out, made)
    asking = described({**named, **_asking(settings)})
    asked = _ask_into(decisions_folder(out), asking, teacher, augment(chosen, settings), resume)
    with show_progress("training the surrogate", settings.training.steps, "steps") as show:
        surrogate = train_surrogate(asked, teacher.classes, settings, show)
    made |= {"queries": surrogate.queries, "agreement": surrogate.agreement}
    write_manifest(manifest_file(out), made)  # first: where there are weights, they are described
    save_model(
        out,
        surrogate.network,
        model=settings.model,
        image_shape=tuple(teacher.image_shape),
        classes=teacher.classes,
        bounds=tuple(teacher.bounds),
        class_names=class_names_of(teacher),
    )
    return made


def manifest_file(out: Path) -> Path:
    """What says how the surrogate in this file came about."""
    return out.with_suffix(".json")


def decisions_folder(out: Path) -> Path:
    """The run of the answers that the surrogate in this file learnt from."""
    return out.with_suffix(".decisions")


def check_out(out: Path, resume: bool = False) -> None:
    """Raises where no surrogate can be written to this file: nothing is overwritten.

    resume: what `write_surrogate` left there is fine.

    Raises ValueError for another suffix than .safetensors, and FileExistsError.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"out: expected a name ending in .safetensors, got {out.name!r}")
    folder = decisions_folder(out)
    if resume and (out.exists() or holds_run(folder)):
        return
    for file in (out, manifest_file(out)):
        if file.exists():
            raise FileExistsError(f"{file}: exists already; choose another --out, or remove it")
    check_free(folder)


def _check_fit(teacher: Teacher, images: AugmentedImages) -> None:
    if images.image_shape != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected shape {tuple(teacher.image_shape)} as teacher {describe(teacher)} "
            f"takes, got {images.image_shape}"
        )
    lower, upper = teacher.bounds
    if lower > 0 or upper < 1:
        raise ValueError(
            f"teacher: expected bounds that hold [0, 1], where augmented images lie, got "
            f"{interval_text(teacher.bounds)} of {describe(teacher)}"
        )


def _ask(
    teacher: Teacher,
    images: AugmentedImages,
    rows: Tensor,
    on_answers: Callable[[int], None],
    journal: Journal | None,
) -> Tensor:
    """The decisions for these rows, int64 [n], each paid for by an account of its own."""
    search = query_in_batches(
        lambda batch: images.read(rows[batch]),
        torch.arange(len(rows)),
        fitting_batch_size(_BATCH_ROWS, images.image_shape),
    )
    return run(search, teacher, Ledger(torch.ones_like(rows)), on_answers, journal)


def _journal(
    folder: RunFolder | None, position: int, classes: int
) -> AbstractContextManager[Journal | None]:
    return nullcontext() if folder is None else folder.journal(position, classes)


def _counter(progress: Progress | None) -> Callable[[int], None]:
    """Adds up how many queries were answered, and passes it on."""
    answered = 0

    def count(more: int) -> None:
        nonlocal answered
        answered += more
        if progress is not None:
            progress.update(samples=answered, queries=answered)

    return count


def _asking(settings: SurrogateSettings) -> dict[str, Any]:
    """The settings that the answers depend on, or how they are kept."""
    return {
        "queries_per_sample": settings.queries_per_sample,
        "held_out_share": HELD_OUT_SHARE,
        "rows_per_shard": _SHARD_ROWS,
    }


def _ask_into(
    folder: Path,
    described: dict[str, Any],
    teacher: Teacher,
    images: AugmentedImages,
    resume: bool,
) -> AugmentedDecisions:
    """As `ask_augmented`, into a run folder."""
    kind = AUGMENTED_DECISIONS
    with RunFolder.open(folder, kind, described, resume=resume) as answers:
        if answers.finished:
            return ask_augmented(teacher, images, folder=answers)
        places = range(0, len(images), _SHARD_ROWS)
        before = sum(min(_SHARD_ROWS, len(images) - p) for p in places if answers.has_shard(p))
        with Progress(
            len(images),
            len(images),
            title="asking the teacher",
            unit="augmented images",
            samples_before=before,
            queries_before=before,
        ) as progress:
            asked = ask_augmented(teacher, images, folder=answers, progress=progress)
        answers.finish({"samples": len(images), "queries": len(images)})
    return asked


def _same(out: Path, made: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a surrogate that is there, if it is the one asked for."""
    file = manifest_file(out)
    try:
        stored = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"{file}: expected what says how {out.name} came about, found none that can be read; "
            "remove both to train it again"
        ) from error
    found = differences(stored, made, NAMES)
    if found:
        raise ValueError(f"{out}: is another surrogate than the one asked for: {'; '.join(found)}")
    return stored


@dataclass(frozen=True)
class _From:
    """The images from a row on, as an image source."""

    images: AugmentedImages
    first: int

    def __len__(self) -> int:
        return len(self.images) - self.first

    def read(self, indices: Tensor) -> Tensor:
        return self.images.read(indices + self.first)
