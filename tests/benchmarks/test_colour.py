"""The colour data sets, on small generated pictures."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

import db3kd

REASON = "benchmarks are not installed"
Image = pytest.importorskip("PIL.Image")
fetch = pytest.importorskip("benchmarks.colour.fetch", reason=REASON)
clipart = pytest.importorskip("benchmarks.colour.clipart", reason=REASON)
packages = pytest.importorskip("benchmarks.colour.packages", reason=REASON)
patches = pytest.importorskip("benchmarks.colour.patches", reason=REASON)

RED, CLEAR = (255, 0, 0, 255), (0, 0, 255, 0)


def positions(height: int, width: int) -> np.ndarray:
    """An image whose colours are the place of a pixel, [height, width, 3] uint8."""
    row, column = np.indices((height, width))
    return np.stack([column % 256, row % 256, column // 256 + 16 * (row // 256)], 2).astype(
        np.uint8
    )


def columns(images: np.ndarray) -> np.ndarray:
    """The columns of a `positions` image that patches show."""
    return np.unique(images[..., 0].astype(int) + 256 * (images[..., 2] % 16).astype(int))


def test_patches_of_the_two_splits_are_apart_by_the_gap():
    photograph = positions(768, 1500)
    train, test = patches.split_photographs({"place": photograph}, train=600, test=300)

    apart = np.abs(columns(train.images)[:, None] - columns(test.images)[None])
    assert apart.min() == patches.GAP + 1  # 16 pixels between them
    assert len(train.images) == 600 and len(test.images) == 300


@pytest.mark.parametrize("width", [1024, 1151, 1280, 3000])
def test_columns_of_patches_stay_in_the_photograph(width):
    for left in patches.corners(width):
        assert left.min() >= 0 and left.max() + 32 <= width


def test_a_patch_is_a_part_of_its_photograph_with_its_label():
    photographs = {name: positions(768, 1100) for name in ("b", "a")}
    photographs["b"][..., 2] += 128
    train, _ = patches.split_photographs(photographs, train=40, test=20)

    assert sorted(set(train.labels)) == ["a", "b"]
    for image, label in zip(train.images, train.labels, strict=True):
        left = int(image[0, 0, 0]) + 256 * int(image[0, 0, 2] % 16)
        shown = photographs[label][:, left : left + 32]
        assert any((shown[top : top + 32] == image).all() for top in range(0, 737, 16))


def test_no_patch_is_drawn_twice():
    train, test = patches.split_photographs({"place": positions(768, 1500)}, train=600, test=300)
    images = np.concatenate([train.images, test.images]).reshape(900, -1)
    assert len(np.unique(images, axis=0)) == 900


def test_a_photograph_is_shrunk_to_its_shorter_side():
    picture = Image.fromarray(np.full((1536, 2000, 3), 7, np.uint8))
    assert patches.scaled(picture).shape == (768, 1000, 3)
    assert (patches.scaled(picture) == 7).all()


def test_small_photographs_are_refused():
    with pytest.raises(ValueError, match="expected at least 768x768 pixels, got 800x700"):
        patches.scaled(Image.new("RGB", (800, 700)))
    with pytest.raises(ValueError, match="place: expected a photograph with at least 5000 patches"):
        patches.split_photographs({"place": positions(768, 768)}, train=5000)


def test_transparent_pixels_show_the_white_ground_and_not_their_own_colour():
    picture = Image.new("RGBA", (64, 64), CLEAR)
    picture.paste(RED, (0, 0, 32, 64))
    image = clipart.thumbnail(picture)

    assert (image[:, :16] == (255, 0, 0)).all()
    assert (image[:, 16:] == 255).all()


def test_half_transparent_edges_mix_with_the_ground():
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    assert np.abs(clipart.thumbnail(picture).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("size", [(64, 16), (16, 64), (4, 1), (200, 1)])
def test_a_picture_keeps_its_proportions_in_the_middle(size):
    image = clipart.thumbnail(Image.new("RGB", size, RED[:3]))
    drawn = (image == RED[:3]).all(2)
    rows, columns_ = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    shape = (len(columns_), len(rows))
    assert shape == tuple(max(1, round(32 * side / max(size))) for side in size)
    for found in (rows, columns_):
        assert abs(found[0] - (31 - found[-1])) <= 1


@pytest.fixture
def folders(tmp_path) -> Path:
    """Three classes of random pictures, with a duplicate, a link, a blank and a broken file."""
    random = np.random.default_rng(0)
    for name, count in {"animals": 10, "food": 15, "rare": 2}.items():
        for number in range(count):
            path = tmp_path / name / "deep" / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    first = tmp_path / "animals" / "deep" / "00.png"
    (tmp_path / "food" / "copy.png").write_bytes(first.read_bytes())
    (tmp_path / "food" / "link.png").symlink_to(first)
    Image.new("RGB", (9, 9), "green").save(tmp_path / "food" / "blank.png")
    (tmp_path / "food" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return tmp_path


def test_each_distinct_picture_is_read_once(folders):
    classes = clipart.read_folders(folders)
    assert {name: len(images) for name, images in classes.items()} == {
        "animals": 10,
        "food": 15,
        "rare": 2,
    }


def test_a_picture_beyond_the_limit_of_pixels_is_left_out(folders, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    assert clipart.read_folders(folders) == {}


def test_a_fifth_of_each_class_is_the_test_split_and_rare_classes_are_left_out(folders):
    train, test = clipart.split_clipart(clipart.read_folders(folders), least=5, most=10)

    for name in ("animals", "food"):
        assert ((train.labels == name).sum(), (test.labels == name).sum()) == (8, 2)
    assert set(train.labels) == {"animals", "food"}
    seen = {image.tobytes() for image in np.concatenate([train.images, test.images])}
    assert len(seen) == 20


def test_clip_art_of_one_class_is_refused(folders):
    with pytest.raises(ValueError, match="expected at least two with 12 pictures or more, got"):
        clipart.split_clipart(clipart.read_folders(folders), least=12)


def package_of(file: Path, name: str = "pictures") -> "packages.Package":
    return packages.Package(name, "1:2-3", hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def fake_tools(monkeypatch):
    """Stands in for apt-get and dpkg-deb; returns the commands that were run."""
    commands: list[list[str]] = []

    def run(command, cwd, check):
        commands.append(command)
        if command[0] == "apt-get":
            (cwd / "pictures_1%3a2-3_all.deb").write_bytes(b"content")
        else:
            (cwd / command[3] / "usr").mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_package_is_fetched_checked_and_unpacked_once(tmp_path, fake_tools):
    expected = packages.Package("pictures", "1:2-3", hashlib.sha256(b"content").hexdigest())
    for _ in range(2):
        assert packages.unpack(expected, tmp_path / "new") == tmp_path / "new" / "pictures"
    assert [command[0] for command in fake_tools] == ["apt-get", "dpkg-deb"]
    assert fake_tools[0][2] == "pictures=1:2-3"
    assert (tmp_path / "new" / "pictures" / "usr").is_dir()


def test_a_package_with_another_checksum_is_never_unpacked(tmp_path, fake_tools):
    with pytest.raises(SystemExit, match="expected SHA-256 0000, got "):
        packages.unpack(packages.Package("pictures", "1:2-3", "0000"), tmp_path)
    assert [command[0] for command in fake_tools] == ["apt-get"]
    assert not (tmp_path / "pictures").exists()


def test_a_file_that_is_there_is_not_fetched(tmp_path, fake_tools):
    file = tmp_path / "pictures_1%3a2-3_all.deb"
    file.write_bytes(b"from elsewhere")
    packages.unpack(package_of(file), tmp_path)
    assert [command[0] for command in fake_tools] == ["dpkg-deb"]


def test_a_machine_without_apt_is_told_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"put pictures_1%3a2-3_all.deb .*snapshot.debian.org"):
        packages.unpack(packages.Package("pictures", "1:2-3", "0"), tmp_path)


def test_the_command_writes_sets_that_load_data_reads(tmp_path, monkeypatch, capsys):
    split = clipart.split_clipart(
        {
            name: np.random.default_rng(seed).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
            for seed, name in enumerate(("zebra", "apple"))
        },
        least=5,
    )
    monkeypatch.setitem(fetch.SETS, "colour-clipart", lambda folder: split)
    monkeypatch.setattr("sys.argv", ["fetch", str(tmp_path), "--sets", "colour-clipart"])
    fetch.main()
    fetch.main()

    assert [file.name for file in tmp_path.iterdir()] == ["colour-clipart.npz"]
    shown = capsys.readouterr().out
    assert "16 train and 4 test images of 2 classes" in shown and "kept" in shown
    loaded = db3kd.load_data(tmp_path / "colour-clipart.npz", "test")
    assert loaded.image_shape == (3, 32, 32) and loaded.class_names == ("apple", "zebra")
    images = (loaded.read(range(4)) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (images == split[1].images).all()
    assert [loaded.class_names[label] for label in loaded.labels] == list(split[1].labels)
