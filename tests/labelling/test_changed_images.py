"""Images that are broken when a run begins, or change before it is resumed."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from label_runs import write_run

import db3kd
from db3kd.data.files.image_files import EncodedPixels
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import TensorImages
from db3kd.data.loading import load_data
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import open_run
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import FunctionTeacher, TeacherError

IMAGES = np.random.RandomState(0).randint(0, 256, (200, 4, 4)).astype(np.uint8)


class LevelTeacher(FunctionTeacher):
    """Says which of four levels an image's mean has; goes out of service after `most` queries."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__(self._level, (1, 4, 4), 4, max_batch=32, fingerprint="pixels")
        self.answered, self._most = 0, most

    def _level(self, images: np.ndarray) -> np.ndarray:
        if self.answered + len(images) > self._most:
            raise RuntimeError("out of service")
        self.answered += len(images)
        return (images.mean((1, 2, 3)) * 40).astype(np.int64) % 4


def write(folder: Path, data: Path, teacher: LevelTeacher, limit=None, resume=True) -> Totals:
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=32)
    again = resume and folder.exists()
    return write_run(folder, teacher, Source(str(data)), settings, limit=limit, resume=again)


def shards(folder: Path) -> list[dict]:
    """The values of all shards; their files also say which run they belong to."""
    return [pq.read_table(file).to_pylist() for file in sorted(folder.glob("*.parquet"))]


@pytest.fixture
def stopped(tmp_path) -> Path:
    """A run whose teacher went out of service when it had decided 96 of 200 images."""
    np.save(tmp_path / "images.npy", IMAGES)
    with pytest.raises(TeacherError, match="out of service"):
        write(tmp_path / "run", tmp_path / "images.npy", LevelTeacher(100))
    return tmp_path / "run"


def change(folder: Path, *rows: int) -> None:
    """Other images at these rows of the data set beside a run."""
    images = IMAGES.copy()
    images[list(rows)] = 255 - images[list(rows)]
    np.save(folder.parent / "images.npy", images)


@pytest.mark.parametrize("rows", [(96,), (7, 150), (199,)])
def test_a_run_does_not_go_on_with_images_that_changed(stopped, rows):
    data, teacher, before = stopped.parent / "images.npy", LevelTeacher(), read_manifest(stopped)
    change(stopped, *rows)
    with pytest.raises(ValueError, match=r"data: was .*; the images or .*: restore them, or start"):
        write(stopped, data, teacher)
    assert teacher.answered == 0 and read_manifest(stopped) == before
    change(stopped)
    totals = write(stopped, data, teacher)
    assert teacher.answered == totals.queries - 96, "nothing is asked twice"


def test_more_images_are_other_images(stopped):
    data = stopped.parent / "images.npy"
    np.save(data, np.concatenate([IMAGES, IMAGES]))
    with pytest.raises(ValueError, match=r"data: was .*: restore them, or start another run"):
        write(stopped, data, LevelTeacher())


def test_images_that_a_limit_leaves_out_may_change_at_any_time(tmp_path, caplog):
    data = tmp_path / "images.npy"
    np.save(data, IMAGES)
    write(tmp_path / "run", data, LevelTeacher(), limit=50)
    drawn = set(open_run(tmp_path / "run", str(data)).labels.index.tolist())
    change(tmp_path / "run", *(row for row in range(200) if row not in drawn))
    teacher = LevelTeacher()
    write(tmp_path / "run", data, teacher, limit=50)
    assert teacher.answered == 0 and not caplog.text
    assert open_run(tmp_path / "run", str(data)).images.read([0]).shape == (1, 1, 4, 4)


def test_a_limit_that_differs_is_not_taken_for_images_that_changed(stopped):
    with pytest.raises(
        ValueError, match=r"different run: settings.limit: was null, is 50 \(limit=\); pass what"
    ):
        write(stopped, stopped.parent / "images.npy", LevelTeacher(), limit=50)


@pytest.mark.parametrize("kind", ["cut short", "of another size", "NaN"])
def test_a_bad_image_is_named_before_anything_is_asked(tmp_path, kind):
    pillow = pytest.importorskip("PIL.Image")
    data, name = tmp_path / "set", "a/39.png"
    (data / "a").mkdir(parents=True)
    for row in range(40):
        pillow.fromarray(IMAGES[row]).save(data / "a" / f"{row:02}.png")
    if kind == "cut short":
        content = (data / name).read_bytes()
        (data / name).write_bytes(content[: len(content) // 2])
    elif kind == "of another size":
        pillow.fromarray(IMAGES[0][:3]).save(data / name)
    else:
        data, name = tmp_path / "set.npy", "row 39"
        np.save(data, np.where(np.arange(40)[:, None, None] == 39, np.nan, IMAGES[:40] / 255.0))
    teacher = LevelTeacher()
    with pytest.raises(ValueError, match=name):
        write(tmp_path / "run", data, teacher)
    assert teacher.answered == 0 and not (tmp_path / "run").exists()


def test_one_pass_checks_and_tells_images_apart():
    values = IMAGES / np.float32(255)
    data = ImageSet.from_arrays(values)
    fingerprint = data.fingerprint(check=True)
    assert fingerprint == data.fingerprint() == ImageSet.from_arrays(values.copy()).fingerprint()
    changed = values.copy()
    changed[3, 0, 0] = 0.5
    swapped = values[[1, 0, *range(2, len(values))]]
    others = {ImageSet.from_arrays(each).fingerprint() for each in (changed, swapped, values[1:])}
    assert len(others | {fingerprint}) == 4
    changed[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="got NaN at row 3"):
        ImageSet.from_arrays(changed).fingerprint(check=True)


def test_labels_and_the_number_of_classes_are_part_of_what_tells_images_apart():
    prints = {
        ImageSet.from_arrays(IMAGES[:3], labels, classes=classes).fingerprint()
        for labels, classes in (([0, 1, 2], 4), ([0, 3, 2], 4), ([0, 1, 2], 5), (None, None))
    }
    assert len(prints) == 4


def test_images_whose_classes_are_matched_are_decoded_once(tmp_path, monkeypatch):
    pillow = pytest.importorskip("PIL.Image")
    for name, level in (("bright", 200), ("dark", 10)):
        for row in range(3):
            file = tmp_path / "set" / name / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pillow.fromarray(np.full((4, 4), level + row, np.uint8)).save(file)
    data = load_data(tmp_path / "set")
    view = data.with_labels(1 - data.labels, ("dark", "bright"))
    decoded = []
    decode = EncodedPixels._decode
    monkeypatch.setattr(
        EncodedPixels,
        "_decode",
        lambda self, *given: decoded.append(given[1]) or decode(self, *given),
    )
    data.fingerprint(check=True)
    view.check()
    view.subset([1, 2]).check()
    assert sorted(decoded) == list(range(6))


FLOATS = torch.from_numpy(IMAGES).unsqueeze(1).float() / 255


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 1, 4, 4), (6, 5)])
def test_a_tensor_and_an_image_set_of_it_have_one_fingerprint(shape):
    images = torch.rand(shape)
    assert TensorImages(images).fingerprint() == ImageSet.from_arrays(images).fingerprint()
    assert TensorImages(images).fingerprint() != TensorImages(images.flip(0)).fingerprint()


def label_floats(out: Path, images, teacher: LevelTeacher, resume: bool = True) -> db3kd.Labels:
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=32)
    return db3kd.label(teacher, images, settings, out=out, resume=resume)


@pytest.mark.parametrize("images", ["tensor", "set", "float64", "without channels"])
def test_a_run_of_a_tensor_goes_on_with_the_same_images(tmp_path, images):
    with pytest.raises(TeacherError, match="out of service"):
        label_floats(tmp_path / "run", FLOATS, LevelTeacher(100), resume=False)
    before = read_manifest(tmp_path / "run")
    given = {
        "tensor": FLOATS,
        "set": ImageSet.from_arrays(FLOATS),
        "float64": ImageSet.from_arrays(FLOATS.double()),
        "without channels": ImageSet.from_arrays(FLOATS[:, 0]),
    }
    teacher = LevelTeacher()

    labels = label_floats(tmp_path / "run", given[images], teacher)

    uninterrupted = LevelTeacher()
    expected = label_floats(tmp_path / "whole", FLOATS, uninterrupted, resume=False)
    assert labels.distances.equal(expected.distances)
    assert teacher.answered == uninterrupted.answered - 96
    assert read_manifest(tmp_path / "run")["data"] == before["data"]
    np.savez(tmp_path / "images.npz", images=FLOATS.numpy())
    run = open_run(tmp_path / "run", str(tmp_path / "images.npz"))
    assert run.images.read(torch.arange(200)).equal(FLOATS)


def test_a_run_of_a_tensor_does_not_go_on_with_other_images(tmp_path):
    label_floats(tmp_path / "run", FLOATS, LevelTeacher(), resume=False)
    with pytest.raises(ValueError, match=r"data: was .*dtype and shape count too"):
        label_floats(tmp_path / "run", ImageSet.from_arrays(FLOATS.flip(0)), LevelTeacher())
    np.savez(tmp_path / "images.npz", images=FLOATS.flip(0).numpy())
    with pytest.raises(ValueError, match="expected the data that"):
        open_run(tmp_path / "run", str(tmp_path / "images.npz"))
