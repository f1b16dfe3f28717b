"""Decisions for sets of images in run folders, so that no image is paid for twice."""

from pathlib import Path

import torch
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.progress_answers import show_answers
from db3kd.querying.driver import decide_all
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import Kind, import_pyarrow, read_shards
from db3kd.teachers import Teacher, describe
from db3kd.wording import counted, input_noun, plural

DECISIONS = Kind("decisions", 1)
"""The kind of run folder that `decide_in_folder` writes. Its column is `decision`."""


def decide_in_folder(path: Path, teacher: Teacher, images: ImageSet, title: str) -> Tensor:
    """Returns the teacher's classes of images, and keeps them in a run folder of their own.

    If the folder holds a run already, only images without an answer are asked about.

    Example:
        >>> decisions = decide_in_folder(out / "test-decisions", teacher, test, "test images")

    Args:
        path: The run folder.
        teacher: See `decide_once`.
        images: See `decide_once`.
        title: See `decide_once`.

    Returns:
        The classes, [n] int64.

    Raises:
        TeacherError: If the teacher fails. Paid answers are kept; a folder without any is removed.
        ValueError: If the folder holds the decisions of another teacher or other images, or if they
            are damaged.
    """
    expected = expected_decisions(path, teacher, images)
    with RunFolder.open(path, DECISIONS, expected.manifest, resume=True) as folder:
        decisions = decide_once(folder, teacher, images, title)
        if not folder.verify_finished():
            folder.finish({"samples": len(images), "queries": len(images)})
    return decisions


def expected_decisions(path: Path, teacher: Teacher, images: ImageSet) -> ExpectedRun:
    """Returns the run that `decide_in_folder` makes or continues with these arguments."""
    manifest = make_manifest(
        {"source": {"data": images.name}, "teacher": describe(teacher)},
        seed=0,  # nothing is drawn: the fingerprint of the images says which they are
        teacher_fingerprint=teacher.fingerprint(),
        classes=teacher.classes,
        # Decisions do not depend on labels, so corrected labels cost no query.
        data_fingerprint=images.with_labels(None).fingerprint(),
    )
    return ExpectedRun(path, DECISIONS, manifest)


def decide_once(folder: RunFolder, teacher: Teacher, images: ImageSet, title: str) -> Tensor:
    """Returns the teacher's classes of images, from the only shard of a run folder if it exists.

    Args:
        folder: The folder, opened for writing. Its manifest identifies the teacher and the images.
        teacher: The teacher to ask.
        images: The images.
        title: What the progress display calls the images.

    Returns:
        The classes, [n] int64.

    Raises:
        TeacherError: If the teacher fails. The journal keeps the answers so far.
        ValueError: If the stored decisions are damaged.
    """
    if folder.has_shard(0):
        return _read_decisions(folder, teacher.classes, len(images))
    noun = input_noun(teacher.image_shape)
    with (
        show_answers(f"asking about {title}", len(images), plural(noun)) as on_answers,
        folder.journal(0, teacher.classes) as journal,
    ):
        decisions = decide_all(
            teacher,
            images.read,
            torch.arange(len(images)),
            on_answers=on_answers,
            journal=journal,
        )
    arrow, _ = import_pyarrow()
    folder.write_shard(0, arrow.table({"decision": decisions.numpy()}))
    return decisions


def _read_decisions(folder: RunFolder, classes: int, count: int) -> Tensor:
    (position, table), *_ = read_shards(folder.path, folder.kind)
    try:
        decisions = read_column(table, "decision", torch.int64)
        check_range("decision", decisions, 0, classes, "a class")
        if len(decisions) != count:
            raise ValueError(f"expected {counted(count, 'row')}, got {len(decisions):,}")
    except (KeyError, ValueError, IndexError) as error:
        raise invalid_shard(folder.path, folder.kind, position, error) from error
    return decisions
