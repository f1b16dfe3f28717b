"""Images that are broken when a run begins, or change before it goes on."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from db3kd.data.image_files import EncodedPixels
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.labelling.label_images import label
from db3kd.labelling.label_run import open_run
from db3kd.labelling.planned_run import RunExecution
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.source import Source
from db3kd.labelling.totals import Totals
from db3kd.storage.image_digests import ImageDigests
from db3kd.storage.manifest import read_manifest
from db3kd.storage.run_images import current_data, images_files
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
    return write_run(folder, teacher, Source(str(data)), settings, limit=limit, resume=resume)


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


def test_a_run_goes_on_with_images_that_changed_before_they_were_asked(stopped, caplog):
    change(stopped, 96, 150)
    data, teacher = stopped.parent / "images.npy", LevelTeacher()

    totals = write(stopped, data, teacher)

    assert "2 images changed since the run was started (row 96, row 150)" in caplog.text
    assert teacher.answered == totals.queries - 96, "nothing is asked twice"
    write(stopped.parent / "undisturbed", data, LevelTeacher())
    assert shards(stopped) == shards(stopped.parent / "undisturbed")
    noted = read_manifest(stopped)["changed_images"]
    assert [(note["images"], note["first"]) for note in noted] == [(2, ["row 96", "row 150"])]
    assert open_run(stopped, str(data)).images.read([96]).equal(load_data(data).read([96]))
    assert len(images_files(stopped)) == 1


def test_a_run_that_checks_its_teacher_goes_on_with_images_that_changed(stopped):
    data, teacher = stopped.parent / "images.npy", LevelTeacher()
    change(stopped, 150)
    (stopped / "_check-0-first.journal").touch()  # of a check that was killed
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=32)
    execution = RunExecution(consistency_checks=32)
    write_run(stopped, teacher, Source(str(data)), settings, resume=True, execution=execution)
    write(stopped.parent / "undisturbed", data, LevelTeacher())
    assert shards(stopped) == shards(stopped.parent / "undisturbed")
    assert not any(check["changed"] for check in read_manifest(stopped)["consistency"])


def test_images_may_change_more_than_once(stopped):
    data = stopped.parent / "images.npy"
    change(stopped, 150)
    with pytest.raises(TeacherError):
        write(stopped, data, LevelTeacher(40))
    change(stopped, 150, 199)
    write(stopped, data, LevelTeacher())
    assert len(read_manifest(stopped)["changed_images"]) == 2
    write(stopped.parent / "undisturbed", data, LevelTeacher())
    assert shards(stopped) == shards(stopped.parent / "undisturbed")


def test_an_image_that_was_asked_may_not_change_and_is_named(stopped):
    change(stopped, 7, 95, 96)
    before, teacher = read_manifest(stopped), LevelTeacher()
    with pytest.raises(
        ValueError,
        match=r"3 of its 200 images, .* 2 of these were .* the first being row 7; restore",
    ):
        write(stopped, stopped.parent / "images.npy", teacher)
    assert teacher.answered == 0 and read_manifest(stopped) == before
    change(stopped)
    write(stopped, stopped.parent / "images.npy", teacher)


def test_once_all_images_are_decided_none_may_change(stopped):
    data = stopped.parent / "images.npy"
    with pytest.raises(TeacherError):
        write(stopped, data, LevelTeacher(200))
    change(stopped, 199)
    with pytest.raises(ValueError, match=r"1 of its 200 images, .* the first being row 199"):
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


@pytest.mark.parametrize("spoil", ["more images", "no digests", "other digests"])
def test_where_nobody_knows_what_changed_the_images_must_be_put_back(stopped, spoil):
    data = stopped.parent / "images.npy"
    change(stopped, 150)
    if spoil == "more images":
        np.save(data, np.concatenate([IMAGES, IMAGES]))
    elif spoil == "no digests":
        images_files(stopped)[0].unlink()
    else:
        images_files(stopped)[0].write_bytes(b"others")
    with pytest.raises(ValueError, match=r"data: was .*: restore them, or start another run"):
        write(stopped, data, LevelTeacher())
    np.save(data, IMAGES)
    write(stopped, data, LevelTeacher())


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
    digests = data.digests(check=True)
    assert digests.fingerprint == data.fingerprint()
    changed = values.copy()
    changed[3, 0, 0] = 0.5
    assert digests.changed(ImageSet.from_arrays(changed).digests()).tolist() == [3]
    changed[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="got NaN at row 3"):
        ImageSet.from_arrays(changed).digests(check=True)


def test_labels_are_part_of_what_tells_images_apart():
    one, other = (
        ImageSet.from_arrays(IMAGES[:3], labels, classes=4).digests()
        for labels in ([0, 1, 2], [0, 3, 2])
    )
    assert one.changed(other).tolist() == [1]
    assert one.changed(ImageSet.from_arrays(IMAGES[:3]).digests()) is None


def test_digests_are_read_back_if_they_are_those_of_the_fingerprint():
    digests = ImageSet.from_arrays(IMAGES[:3]).digests()
    again = ImageDigests.read(digests.content, digests.fingerprint)
    assert again.changed(digests).tolist() == []
    assert ImageDigests.read(digests.content + b"x", digests.fingerprint) is None


def test_the_fingerprint_that_a_run_was_begun_with_stays(stopped):
    begun = read_manifest(stopped)["data"]
    change(stopped, 150)
    write(stopped, stopped.parent / "images.npy", LevelTeacher())
    after = read_manifest(stopped)
    assert after["data"] == begun != current_data(after)


def test_a_folder_that_labelling_from_python_fills_goes_on_too(tmp_path):
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=32)
    with pytest.raises(TeacherError, match="out of service"):
        label(LevelTeacher(100), ImageSet.from_arrays(IMAGES), settings, out=tmp_path / "run")
    np.save(tmp_path / "images.npy", IMAGES)
    change(tmp_path / "run", 150)
    images = ImageSet.from_arrays(np.load(tmp_path / "images.npy"))
    made = label(LevelTeacher(), images, settings, out=tmp_path / "run", resume=True)
    assert made.distances.equal(label(LevelTeacher(), images, settings).distances)


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
    data.digests(check=True)
    view.check()
    view.subset([1, 2]).check()
    assert sorted(decoded) == list(range(6))
