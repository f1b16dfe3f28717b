"""Label runs from end to end: labelling a data set into a folder, and finding its images again."""

import dataclasses
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.data.class_names import match_classes, matched
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import is_remote, load_data
from db3kd.labelling.consistency import ConsistencyChecks, reserved_queries
from db3kd.labelling.label_images import (
    LabelSettings,
    chunk_size,
    divide_budget,
    label_chunks,
    with_soft_labels,
)
from db3kd.labelling.labels import LABELS, Labels, load_labels, to_table
from db3kd.labelling.run_identity import NAMES, label_manifest, run_images
from db3kd.labelling.soft_labels import make_soft_labels
from db3kd.labelling.totals import Totals, add_up
from db3kd.labelling.worker_pool import Workers, import_ray, start_workers
from db3kd.ops import Normalisation
from db3kd.progress import Progress
from db3kd.querying.search import UNANSWERED
from db3kd.storage.manifest import CLASS_NAMES, check_state, is_finished, read_manifest
from db3kd.storage.run_folder import RunFolder, check_free
from db3kd.storage.run_images import current_data
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images

DEFAULT_TEMPERATURE: dict[Normalisation, float] = {"margin": 4.0, "inverse": 20.0}
"""Temperature of soft labels where none is given; that of inverse is the paper's."""


@dataclass(frozen=True)
class Source:
    """Where images come from: the arguments of `load_data`."""

    data: str
    split: str = "train"
    size: int | None = None
    channels: int | None = None

    def load(self) -> ImageSet:
        return load_data(self.data, self.split, size=self.size, channels=self.channels)


@dataclass(frozen=True)
class SoftLabelSettings:
    """How distances become soft labels: the arguments of `with_soft_labels`."""

    normalisation: Normalisation
    scale: float
    temperature: float


@dataclass(frozen=True)
class LabelRun:
    """A run read back: its labels, and its images in the same order."""

    labels: Labels
    images: ImageSet
    manifest: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers, if they have names."""
        names = self.manifest["settings"].get(CLASS_NAMES)
        return None if names is None else tuple(names)

    def match(self, images: ImageSet) -> ImageSet:
        """Other images, such as a test split, with labels in the numbering of the run's teacher.

        Raises:
            ValueError: they are in classes that the run does not know by name.
        """
        who = f"teacher {self.manifest['settings']['teacher']}"
        return match_classes(images, self.class_names, self.labels.classes, who)

    @property
    def soft_label_settings(self) -> dict[str, Any]:
        """The `SoftLabelSettings` it was labelled with; empty where it holds distances alone."""
        return self.manifest["settings"].get("soft_labels") or {}


def distance_against_queries(labels: Labels) -> tuple[list[float], list[float]]:
    """Mean distance at each snapshot and at the end, against queries per pair.

    The last point lies at the mean number spent, and a snapshot beyond it adds nothing. A pair
    counts where its class was reached at every point, so that all means are over the same pairs.
    """
    other = labels.targets
    spent = labels.queries[other].double().mean().item()
    points = [(float(count), labels.snapshots[count]) for count in sorted(labels.snapshots)]
    points = [(count, noted) for count, noted in points if count < spent]
    points.append((spent, labels.distances))
    everywhere = torch.stack([noted[other] for _, noted in points]).double()
    everywhere = everywhere[:, everywhere.isfinite().all(0)]
    return [count for count, _ in points], everywhere.mean(1).tolist()


def spread_over_classes(decisions: Tensor, count: int) -> Tensor:
    """Rows of `count` answered samples, as evenly over their classes as can be, sorted by class."""
    by_class: dict[int, list[int]] = {}
    for row, own in enumerate(decisions.tolist()):
        if own != UNANSWERED:
            by_class.setdefault(own, []).append(row)
    places = sorted(
        (place, own, row) for own, rows in by_class.items() for place, row in enumerate(rows)
    )
    chosen = sorted((own, row) for _, own, row in places[:count])
    return torch.tensor([row for _, row in chosen])


def margin_soft_labels(distances: Tensor, own: Tensor, scale: float, temperature: float) -> Tensor:
    """Soft labels as `choose_scale` wants them made."""
    return make_soft_labels(
        distances, own, normalisation="margin", scale=scale, temperature=temperature
    )


def draw_samples(count: int, limit: int | None, seed: int) -> Tensor:
    """`limit` of `count` samples drawn at random, in ascending order; all without a limit."""
    if limit is None or limit >= count:
        return torch.arange(count)
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 image, got {limit}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:limit].sort().values


def write_run(
    folder: str | Path,
    teacher: Teacher,
    source: Source,
    settings: LabelSettings,
    *,
    limit: int | None = None,
    soft_labels: SoftLabelSettings | None = None,
    resume: bool = False,
    workers: Workers | None = None,
    concurrent_chunks: int | None = None,
    surrogate: nn.Module | None = None,
    consistency_checks: int = 0,
    accept_changes: bool = False,
) -> Totals:
    """Labels the images of a source into a run folder, a shard at a time, showing progress.

    An index in the run is that of the image in its source, also where `limit` draws some by the
    settings' seed. Nothing is read before the folder is known to be free, nor asked before the
    images are known to fit.

    resume: go on with the run in the folder, if there is one, after checking that it is of the same
    teacher, images and settings (what they are called may differ). Its labels and totals become
    what they would have been without a stop. Answers are kept before the teacher is called again,
    so at most one call, of `settings.query_batch_size` or `teacher.max_batch` queries, whichever is
    less, is paid twice for each time the process was killed, or as many as it has
    `concurrent_chunks`; of a served teacher, its requests in flight (`batch * in_flight` queries);
    `db3kd.storage.run_folder.queries_in_flight` says how many queries that may be. A power cut
    costs at most the answers of a second and of `settings.query_batch_size` queries a flight.
    Nothing is asked for a finished run.

    workers: label in several processes; labels, totals and budgets are those of one, and a run may
    go on with any number of them. All images are decided by this process, which for a measure other
    than "sd" is a small share. Where a worker dies, its shard goes on in another, and what it had
    in flight counts as above. ChildProcessError, an OSError, where a shard keeps killing workers.

    Of its images some may have changed since, if the teacher was not asked about them yet: one that
    is broken, or left out by `limit`, is repaired and the run goes on. The manifest says so.

    concurrent_chunks: shards that one process searches at once, as for `label_chunks`; a worker
        searches one.

    surrogate: as for `label_chunks`, and part of what the run is.

    consistency_checks: most queries that ask for known answers again, to find a teacher that is
    noisy or was replaced; see db3kd.labelling.consistency, whose findings the manifest has. Labels
    are those of a run without, unless `settings.queries` is given: then the budget pays for the
    checks too, with at most a hundredth of it. accept_changes: resume a run although answers have
    changed.

    Raises FileExistsError for a folder with something in it, ValueError for images that do not fit
    the teacher or a run that is not the same, TeacherError where the teacher fails, and OSError
    where the disk does. What was answered until then stays; where nothing was, the folder goes.
    """
    check_free(folder, resume)
    if workers is not None:
        import_ray()
    images = source.load()
    teacher = takes_unit_images(teacher)
    if settings.queries is not None:
        reserved = reserved_queries(consistency_checks, settings.queries)
        settings = dataclasses.replace(settings, queries=settings.queries - reserved)
        consistency_checks = reserved
    rows = draw_samples(len(images), limit, settings.seed)
    chosen = images.subset(rows)
    renumbered = matched(chosen, teacher)
    check = not (resume and is_finished(folder))
    known = run_images(chosen, settings, teacher.classes, check=check)
    described = label_manifest(
        teacher,
        renumbered,
        settings,
        source=source,
        limit=limit,
        soft_labels=soft_labels,
        samples_per_shard=chunk_size(teacher, settings),
        data_fingerprint=known.digests.fingerprint,
        surrogate=surrogate,
    )
    with RunFolder.open(
        folder, LABELS, described, resume=resume, apart_from=NAMES, images=known
    ) as run:
        if run.finished:
            return add_up(run)
        pool = (
            nullcontext()
            if workers is None
            else start_workers(workers, run, teacher, renumbered, settings, surrogate)
        )
        checks = None
        if consistency_checks:
            checks = ConsistencyChecks(run, consistency_checks, accept_changes)
        with pool as helpers:
            options = {
                "pool": helpers,
                "concurrent_chunks": concurrent_chunks,
                "surrogate": surrogate,
                "checks": checks,
            }
            _label_into(run, teacher, renumbered, rows, settings, soft_labels, options)
        if checks is not None:
            checks.end(teacher, renumbered, settings.measure)
        totals = add_up(run)
        run.finish(vars(totals))
    return totals


def _label_into(
    run: RunFolder,
    teacher: Teacher,
    images: ImageSet,
    index: Tensor,
    settings: LabelSettings,
    soft_labels: SoftLabelSettings | None,
    options: Mapping[str, Any],
) -> None:
    """Labels what the run has no shard of yet.

    index: [n] int64, of the images in their source. options: others of `label_chunks`.
    """
    before = add_up(run)
    progress = Progress(
        len(images),
        int(divide_budget(settings, len(images), teacher.classes).sum()),
        title=f"labelling ({settings.measure})",
        samples_before=before.samples,
        queries_before=before.queries - before.decided,  # decisions are counted when replayed
    )
    chunks = label_chunks(teacher, images, settings, progress=progress, folder=run, **options)
    with progress:
        for chunk in chunks:
            position = int(chunk.index[0])
            chunk = dataclasses.replace(chunk, index=index[chunk.index])
            if soft_labels is not None:
                chunk = with_soft_labels(chunk, **dataclasses.asdict(soft_labels))
            run.write_shard(position, to_table(chunk))


def open_run(folder: str | Path, data: str | None = None) -> LabelRun:
    """A run and its images.

    data: what `load_data` takes, if the images lie elsewhere than when they were labelled; a run
    remembers of an absolute path only its last part. A run may be somebody else's, so what it says
    of its images is used only if they lie on this machine: a set from the hub has to be named here.

    Raises ValueError if the images are not those that were labelled, or are to be named.
    """
    described = read_manifest(folder, LABELS.format)
    check_state(folder, described)
    source = _source(folder, described.get("settings", {}).get("source"), data)
    try:
        images = source.load()
    except (ValueError, FileNotFoundError) as error:
        if data is not None:
            raise
        raise ValueError(
            f"{folder}: its images, {source.data!r}, were not found; say where they are with --data"
        ) from error
    rows = draw_samples(len(images), described["settings"].get("limit"), described["seed"])
    if images.subset(rows).fingerprint() != current_data(described):
        raise ValueError(
            f"data: expected the images that {folder} was labelled from, got other images or "
            f"labels in {source.data!r} ({source.split}); give --data as it was"
        )
    labels = load_labels(folder)
    if int(labels.index.max()) >= len(images):
        raise ValueError(
            f"{folder}: column index: expected numbers in [0, {len(images)}) as there are images, "
            f"got {int(labels.index.max())}"
        )
    run = LabelRun(labels, images.subset(labels.index), described)
    return dataclasses.replace(run, images=run.match(run.images))


def _stored_source(folder: str | Path, stored: Any) -> Source:
    """The source in a manifest.

    Raises:
        ValueError: it is none.
    """
    kinds = {"data": str, "split": str, "size": int | None, "channels": int | None}
    names = {"data"} if not isinstance(stored, Mapping) else kinds.keys() & stored.keys()
    if (
        not isinstance(stored, Mapping)
        or not {"data"} <= stored.keys() <= kinds.keys()
        or not all(isinstance(stored[name], kinds[name]) for name in names)
    ):
        raise ValueError(
            f"{folder}: entry settings.source: expected the names of its images, got {stored!r:.80}"
        )
    return Source(**stored)


def _source(folder: str | Path, stored: Mapping[str, Any], data: str | None) -> Source:
    source = _stored_source(folder, stored)
    if data is not None:
        return dataclasses.replace(source, data=data)
    if is_remote(source.data):
        raise ValueError(
            f"{folder}: its images come from the Hugging Face hub, and nothing is fetched because "
            f"a file says so; if you trust it, name them: --data {source.data} (data=)"
        )
    if Path(source.data).is_absolute():
        raise ValueError(
            f"{folder}: expected the name of a data set or a relative path in its manifest, got "
            f"{source.data!r}; say where its images are with --data (data=)"
        )
    return source
