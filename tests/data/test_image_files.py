"""Image files, in folders."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image_cases import COLOURED, GREY, as_tensor, write_png

from db3kd.data.files.image_folders import scan_image_folder
from db3kd.data.files.splits import split_named
from db3kd.data.loading import load_data
from db3kd.storage.manifest import MANIFEST

EXAMPLES = int(os.environ.get("DB3KD_FUZZ_EXAMPLES", "60"))


def test_an_image_folder_is_read(tmp_path, cache):
    for row, image in enumerate(COLOURED):
        part = "train" if row < 4 else "test"
        write_png(tmp_path / "set" / part / "ab"[row % 2] / f"{row}.png", image)
    train, test = load_data(tmp_path / "set"), load_data(tmp_path / "set", "test")
    assert (len(train), len(test), train.classes, train.name) == (4, 2, 2, "set, split train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.read([2, 0]).equal(as_tensor(COLOURED[[1, 0]]))
    assert test.subset([1]).read([0]).equal(as_tensor(COLOURED[[5]]))
    assert train.fingerprint() != test.fingerprint()


def test_a_grey_image_folder_has_one_channel(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", GREY)
    write_png(tmp_path / "set" / "b" / "1.png", COLOURED[0])
    data = load_data(tmp_path / "set")
    assert data.read([0]).equal(torch.from_numpy(GREY[None, None]).float() / 255)
    with pytest.raises(ValueError, match=r"b/1.png is coloured .*pass channels=1 or channels=3"):
        data.read([1])
    assert load_data(tmp_path / "set", channels=3).read([1]).equal(as_tensor(COLOURED[:1]))
    assert load_data(tmp_path / "set", channels=1).read([0, 1]).shape == (2, 1, 6, 5)


def test_sixteen_bit_grey_is_scaled(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", np.full((4, 4), 0x8080, np.uint16))
    assert load_data(tmp_path / "set").read([0]).eq(128 / 255).all()


def test_images_of_mixed_size_need_a_size(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", np.full((8, 16, 3), 100, np.uint8))
    write_png(tmp_path / "set" / "a" / "1.png", np.full((20, 10, 3), 200, np.uint8))
    with pytest.raises(ValueError, match=r"a/1.png is 20x10 and the first is 8x16; pass size="):
        load_data(tmp_path / "set").read([0, 1])
    images = load_data(tmp_path / "set", size=4).read([0, 1])
    assert images.shape == (2, 3, 4, 4)
    assert images[0].eq(100 / 255).all() and images[1].eq(200 / 255).all()


def test_a_resized_image_keeps_its_middle(tmp_path, cache):
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 255
    write_png(tmp_path / "set" / "a" / "0.png", stripes)
    assert load_data(tmp_path / "set", size=4).read([0]).eq(1).all()


@pytest.mark.parametrize(("shape", "kept"), [((12, 4), "rows"), ((4, 12), "columns")])
def test_images_of_a_height_and_a_width_keep_their_middle(tmp_path, cache, shape, kept):
    stripes = np.zeros(shape, np.uint8)
    middle = stripes[4:8] if kept == "rows" else stripes[:, 4:8]
    middle[:] = np.arange(16, dtype=np.uint8).reshape(4, 4)
    write_png(tmp_path / "set" / "0.png", stripes)
    grown = np.kron(middle, np.ones((2, 2), np.uint8))
    write_png(tmp_path / "other" / "0.png", grown)

    images = load_data(tmp_path / "set", size=(4, 4))
    wide = load_data(tmp_path / "other", size=(4, 8))
    tall = load_data(tmp_path / "other", size=(8, 4), channels=3)

    assert (images.read([0])[0, 0] * 255).equal(torch.from_numpy(middle.copy()).float())
    # The image of 8x8 covers both sizes as it is.
    assert (wide.read([0])[0, 0] * 255).equal(torch.from_numpy(grown[2:6]).float())
    assert tall.image_shape == (3, 8, 4)
    assert (tall.read([0])[0, 2] * 255).equal(torch.from_numpy(grown[:, 2:6]).float())


@pytest.mark.parametrize(
    ("size", "plain"), [(np.int64(4), 4), ([4, 8], (4, 8)), ((np.int32(4), 8), (4, 8))]
)
def test_a_size_may_be_a_list_or_have_integers_of_numpy(tmp_path, size, plain):
    write_png(tmp_path / "set" / "0.png", np.zeros((8, 8), np.uint8))
    images = load_data(tmp_path / "set", size=size, channels=np.int64(1))
    assert images.loaded_with == load_data(tmp_path / "set", size=plain, channels=1).loaded_with
    json.dumps(images.loaded_with)  # as manifests of runs do


@pytest.mark.parametrize("size", [0, -1, 2.5, "28", (4,), (4, 5, 6), (0, 4), True])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    write_png(tmp_path / "set" / "0.png", GREY)
    with pytest.raises(ValueError, match=r"size: expected pixels such as 28, or \(height, width\)"):
        load_data(tmp_path / "set", size=size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 10**7},
            r"size: expected at most 178,956,970 pixels, got 10,000,000 x 10,000,000",
        ),
        ({"channels": True}, "channels: expected 1 or 3, got True"),
        ({"channels": "3"}, "channels: expected 1 or 3, got '3'"),
    ],
)
def test_other_options_of_images_are_refused(tmp_path, options, message):
    write_png(tmp_path / "set" / "0.png", GREY)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "set", **options)


# Which images a folder holds, and what its folders mean


def an_image_at(*paths):
    for path in paths:
        write_png(path, GREY)


def test_a_class_may_be_called_like_a_split(tmp_path):
    an_image_at(tmp_path / "v" / "bus" / "0.png", tmp_path / "v" / "train" / "1.png")
    data = load_data(tmp_path / "v")
    assert data.class_names == ("bus", "train") and data.labels.tolist() == [0, 1]


def test_a_word_in_a_file_name_picks_no_split(tmp_path):
    an_image_at(*(tmp_path / "v" / "a" / f"{row}.png" for row in range(4)))
    an_image_at(tmp_path / "v" / "b" / "my-test-shot.png")
    data = load_data(tmp_path / "v")
    assert len(data) == 5 and data.labels.tolist() == [0, 0, 0, 0, 1]


def test_the_folder_under_the_root_is_the_class_however_deep_its_images_lie(tmp_path):
    an_image_at(tmp_path / "v" / "a" / "2023" / "0.png", tmp_path / "v" / "b" / "2024" / "0.png")
    assert load_data(tmp_path / "v").class_names == ("a", "b")
    parts = [f"{part}/{name}/{year}" for part in ("train", "val") for name in "ab" for year in "12"]
    an_image_at(*(tmp_path / "w" / part / "0.png" for part in parts))
    data = load_data(tmp_path / "w", "validation")
    assert data.class_names == ("a", "b") and data.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "paths",
    [
        ("a/0.png", "b/2024/0.png"),
        ("0.png", "a/0.png"),
        ("train/a/0.png", "train/0.png"),
    ],
)
def test_images_at_different_depths_have_no_labels(tmp_path, paths, caplog):
    an_image_at(*(tmp_path / path for path in paths))
    loaded = load_data(tmp_path)
    assert len(loaded) == 2 and loaded.labels is None
    assert "have no labels, because they lie at different depths" in caplog.text


def test_splits_beside_other_folders_are_not_mixed(tmp_path):
    an_image_at(*(tmp_path / path for path in ("train/a/0.png", "test/a/0.png", "bus/0.png")))
    with pytest.raises(ValueError, match=r"at the same depth, .*, got \S+png and \S+png"):
        load_data(tmp_path)


def test_folders_of_images_that_are_called_like_splits_are_splits_without_labels(tmp_path):
    an_image_at(tmp_path / "flat" / "train" / "0.png", tmp_path / "flat" / "test" / "1.png")
    for split in ("train", "test"):
        data = load_data(tmp_path / "flat", split)
        assert (len(data), data.labels, data.class_names) == (1, None, None)
    with pytest.raises(ValueError, match=r"split: .*flat has 'test', 'train', got 'validation'"):
        load_data(tmp_path / "flat", "validation")


def test_images_without_folders_are_a_set_without_labels(tmp_path):
    an_image_at(tmp_path / "0.png", tmp_path / "1.PNG")
    assert (len(load_data(tmp_path)), load_data(tmp_path).labels) == (2, None)


def test_two_folders_of_one_split_are_refused(tmp_path):
    an_image_at(tmp_path / "val" / "a" / "0.png", tmp_path / "validation" / "a" / "0.png")
    with pytest.raises(ValueError, match="got val and validation, which are both 'validation'"):
        load_data(tmp_path)


def test_a_class_that_one_split_lacks_keeps_its_number(tmp_path):
    an_image_at(*(tmp_path / part for part in ("train/a/0.png", "train/c/0.png", "test/b/0.png")))
    assert load_data(tmp_path).labels.tolist() == [0, 2]
    assert load_data(tmp_path, "test").labels.tolist() == [1]


def test_a_warning_counts_the_files_that_are_left_out(tmp_path, caplog):
    an_image_at(tmp_path / "a" / "0.png", tmp_path / "a" / ".hidden.png")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    (tmp_path / "a" / "1.png").symlink_to("missing.png")
    assert len(load_data(tmp_path)) == 1
    left_out = "1 behind a broken link, 1 hidden, 1 with the suffix '.txt'"
    assert f"3 of 4 files were left out: {left_out}" in caplog.text


NAMES = st.sampled_from(["a", "b", "train", "test", "Val", "2023", "my-train", "x.png", " é"])


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sets(
        st.tuples(
            st.lists(NAMES, max_size=3).map(tuple), st.sampled_from(["0.png", "test.png", "n.txt"])
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_folder_is_read_completely_or_refused_with_two_of_its_paths(tmp_path_factory, paths):
    root = tmp_path_factory.mktemp("folder")
    for folders, name in sorted(paths):
        file = root.joinpath(*folders, name)
        if any(parent.is_file() for parent in file.parents) or file.is_dir():
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    images = sorted(path.relative_to(root) for path in root.rglob("*.png") if path.is_file())
    try:
        found = scan_image_folder(root)
    except ValueError as error:
        text = str(error)
        depths = {len(path.parts) for path in images}
        assert "got none" in text or "both" in text or len(depths) > 1, text
        return
    assert (
        sorted(path.relative_to(root) for part in found.splits.values() for path in part) == images
    )
    for split, files in found.splits.items():
        below = int(split_named(files[0].relative_to(root).parts[0]) == split)
        depths = {len(path.relative_to(root).parts) for path in files}
        assert len(depths) == 1 or found.classes[split] is None
        if found.classes[split] is not None:
            for path, name in zip(files, found.classes[split], strict=True):
                assert name in path.relative_to(root).parts[: below + 1]


ANY_NAME = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=12
).filter(lambda name: not name.startswith((".", "__MACOSX")))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_the_class_is_the_folder_below_the_split_whatever_it_is_called(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("folder")
    names = data.draw(st.lists(ANY_NAME, min_size=1, max_size=3, unique=True))
    splits = data.draw(st.sampled_from([(), ("train",), ("Test", "dev"), ("train", "val", "eval")]))
    assume(splits or not all(map(split_named, names)))
    expected = {}
    for split in splits or ("",):
        depth = data.draw(st.integers(0, 2))
        for name in names:
            below = data.draw(st.lists(ANY_NAME, min_size=depth, max_size=depth))
            path = root.joinpath(split, name, *below, data.draw(ANY_NAME)[:8] + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            expected[path] = split_named(split) or "train", name

    found = scan_image_folder(root)

    assert found.class_names == tuple(sorted(names))
    assert expected == {
        path: (split, name)
        for split, paths in found.splits.items()
        for path, name in zip(paths, found.classes[split], strict=True)
    }


# Which images can be read


def as_file(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def test_a_tiff_of_floats_is_read_as_it_is(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    as_file(tmp_path / "a" / "0.tif", pillow.fromarray(np.full((3, 4), 0.5, np.float32)))
    assert load_data(tmp_path).read([0]).eq(0.5).all()
    for name, value in (("1", 200.0), ("2", np.nan), ("3", 1.0000001)):
        folder = tmp_path / name / "a"
        as_file(folder / "0.tif", pillow.fromarray(np.full((3, 4), value, np.float32)))
        with pytest.raises(ValueError, match=rf"{name}: a/0.tif: expected floats in \[0, 1\]"):
            load_data(tmp_path / name).check()


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_either_byte_order_are_scaled(tmp_path, order):
    (tmp_path / "a").mkdir()
    values = np.array([[0, 65535], [0x8080, 257]], np.uint16)
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 1), (273, 110), (278, 2), (279, 8)]
    content = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(tags))
    for tag, value in tags:
        content += struct.pack(f"{order}HHII", tag, 4, 1, value)
    content += struct.pack(f"{order}I", 0)
    content = content.ljust(110, b"\0") + values.astype(f"{order}u2").tobytes()
    (tmp_path / "a" / "0.tif").write_bytes(content)
    expected = torch.from_numpy(values.astype(np.float32) / np.float32(65535))
    assert load_data(tmp_path).read([0])[0, 0].equal(expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_eight_bits_is_read(tmp_path, mode):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray(np.full((3, 4, 3), 255, np.uint8)).convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    as_file(tmp_path / "a" / f"0.{suffix}", image)
    data = load_data(tmp_path)
    assert data.image_shape[0] == (1 if mode in ("1", "L", "LA") else 3)
    assert data.read([0]).min() > 0.99


def test_an_orientation_in_exif_data_is_ignored(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    turned = pillow.Exif()
    turned[0x0112] = 6
    as_file(tmp_path / "a" / "0.png", pillow.fromarray(GREY), exif=turned)
    assert load_data(tmp_path).read([0]).equal(torch.from_numpy(GREY)[None, None] / 255)


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    image = pillow.fromarray(COLOURED[0]).convert("P")
    as_file(tmp_path / "a" / "0.png", image, transparency=bytes(range(256)))
    assert load_data(tmp_path).read([0]).shape == (1, 3, 6, 5)


def test_a_mode_without_a_rule_is_refused_by_name(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    as_file(tmp_path / "a" / "0.tif", pillow.fromarray(np.full((3, 4), 70_000, np.int32)))
    with pytest.raises(ValueError, match=r"a/0.tif: expected an image of 8 or 16 bits .* mode I "):
        load_data(tmp_path)


def test_an_image_that_is_cut_short_is_found_by_a_check_and_named(tmp_path):
    an_image_at(*(tmp_path / "a" / f"{row}.png" for row in range(3)))
    path = tmp_path / "a" / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    data = load_data(tmp_path)
    with pytest.raises(ValueError, match=r"a/2.png: expected an image, which Pillow"):
        data.check()


def test_a_label_run_is_refused_as_data(tmp_path):
    (tmp_path / MANIFEST).write_text('{"format": "db3kd labels 2"}')
    (tmp_path / "labels-0000000000-00000000.parquet").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"is a run of db3kd label \(labels\), expected the images"
    ):
        load_data(tmp_path)
