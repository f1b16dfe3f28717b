"""Tables of images: Parquet files and sets of the hub."""

import socket

import numpy as np
import pytest
from image_cases import COLOURED, DRAW, GREY, as_tensor, write_png

from db3kd.data.files.parquet_size import check_parquet_size
from db3kd.data.loading import load_data


@pytest.mark.parametrize("declared", [True, False])
def test_parquet_with_an_image_column_is_read(tmp_path, cache, declared):
    datasets = pytest.importorskip("datasets")
    for row, image in enumerate(COLOURED):
        write_png(tmp_path / f"{row}.png", image)
    content = [{"bytes": (tmp_path / f"{row}.png").read_bytes(), "path": None} for row in range(6)]
    table = datasets.Dataset.from_dict({"img": content, "label": [0, 1, 2, 0, 1, 2]})
    if declared:
        table = table.cast_column("img", datasets.Image())
    (tmp_path / "set").mkdir()
    table.select(range(4)).to_parquet(tmp_path / "set" / "train-00000.parquet")
    table.select(range(4, 6)).to_parquet(tmp_path / "set" / "test-00000.parquet")

    test = load_data(tmp_path / "set", "test")
    assert test.labels.tolist() == [1, 2] and test.classes == 3
    assert test.read([1, 0]).equal(as_tensor(COLOURED[[5, 4]]))
    single = load_data(tmp_path / "set" / "train-00000.parquet")
    assert len(single) == 4 and single.read([3]).equal(as_tensor(COLOURED[[3]]))
    with pytest.raises(ValueError, match=r"split: set has .*'train'.*got 'validation'"):
        load_data(tmp_path / "set", "validation")


def test_a_hub_set_without_images_lists_its_columns(monkeypatch):
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_dict({"text": ["a"], "label": [0]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(train=part))
    with pytest.raises(
        ValueError, match="expected a column of images, got the columns text, label"
    ):
        load_data("hub:me/set")


@pytest.mark.parametrize(
    ("spec", "hub_name", "side"),
    [
        ("cifar10", "uoft-cs/cifar10", 6),
        ("flowers102", "nelorth/oxford-flowers", 224),
        ("hub:me/set", "me/set", 6),
    ],
)
def test_a_hub_name_is_loaded_from_the_hub(monkeypatch, spec, hub_name, side):
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image").fromarray(COLOURED[0, :, :5])
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=9)}
    )
    part = datasets.Dataset.from_dict({"img": [image], "label": [4]}, features=features)
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: asked.append(name) or {"train": part}
    )
    data = load_data(spec)
    assert asked == [hub_name]
    assert (data.image_shape[1], data.classes, data.labels.tolist()) == (side, 9, [4])


# Tables that name files and hosts


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/image.png", "/dev/zero", "private.png"])
def test_a_cell_that_names_a_file_or_an_address_is_refused_and_nothing_is_opened(
    tmp_path, cache, monkeypatch, path
):
    datasets = pytest.importorskip("datasets")
    write_png(tmp_path / "private.png", GREY)
    write_png(tmp_path / "0.png", GREY)
    cells = [
        {"bytes": (tmp_path / "0.png").read_bytes(), "path": "/dev/zero"},
        {"bytes": None, "path": str(tmp_path / path) if path == "private.png" else path},
    ]
    table = datasets.Dataset.from_dict({"image": cells, "label": [0, 1]})
    table.to_parquet(tmp_path / "set.parquet")
    data = load_data(tmp_path / "set.parquet")
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("a host was asked"))
    assert data.read([0]).shape == (1, 1, 6, 5)
    for read in (data.check, data.fingerprint, lambda: data.read([1])):
        with pytest.raises(
            ValueError,
            match=r"column 'image': expected .* in row [12], counted from [01], .*not opened",
        ):
            read()


def test_a_label_column_that_declares_images_is_not_decoded(tmp_path, cache, monkeypatch):
    datasets = pytest.importorskip("datasets")
    write_png(tmp_path / "0.png", GREY)
    cell = {"bytes": (tmp_path / "0.png").read_bytes(), "path": None}
    named = {"bytes": None, "path": str(tmp_path / "0.png")}
    table = datasets.Dataset.from_dict({"image": [cell], "label": [named]})
    table.cast_column("label", datasets.Image()).to_parquet(tmp_path / "set.parquet")
    opened = lambda *_, **__: pytest.fail("a cell was decoded")  # noqa: E731
    monkeypatch.setattr(datasets.Image, "decode_example", opened)
    with pytest.raises(TypeError, match=r"column 'label': expected class names, .*, got object"):
        load_data(tmp_path / "set.parquet")


@pytest.mark.parametrize("trick", ["compressed", "one cell for many rows"])
def test_a_parquet_file_that_would_fill_the_memory_is_refused(tmp_path, cache, monkeypatch, trick):
    datasets = pytest.importorskip("datasets")
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    write_png(tmp_path / "0.png", GREY)
    content = (tmp_path / "0.png").read_bytes()
    if trick == "compressed":
        content, rows = content.ljust(2_000_000, b"\0"), 1
    else:
        content, rows = content + np.random.RandomState(0).bytes(20_000), 100
    cells = arrow.array([{"bytes": content, "path": None}] * rows)
    table = arrow.table({"image": cells, "label": [0] * rows})
    parquet.write_table(table, tmp_path / "set.parquet", compression="zstd")
    assert len(load_data(tmp_path / "set.parquet")) == rows
    monkeypatch.setenv("DB3KD_MAX_DECOMPRESSED_GIB", "0.001")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match=r"set.parquet: expected at most 0.001 GiB once decompr"):
        load_data(tmp_path / "set.parquet")


def test_a_parquet_file_of_different_images_may_be_large(tmp_path, cache, monkeypatch):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    write_png(tmp_path / "0.png", GREY)
    start = (tmp_path / "0.png").read_bytes()
    cells = [{"bytes": start + DRAW.bytes(20_000), "path": None} for _ in range(100)]
    parquet.write_table(
        arrow.table({"image": cells, "label": [[1]] * 100, "note": ["as they come"] * 100}),
        tmp_path / "set.parquet",
    )
    monkeypatch.setenv("DB3KD_MAX_DECOMPRESSED_GIB", "0.001")
    check_parquet_size(tmp_path / "set.parquet")


def test_a_broken_parquet_file_is_named(tmp_path, cache):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"set.parquet: expected a valid Parquet file"):
        load_data(tmp_path / "set.parquet")


def test_a_word_in_the_name_of_a_parquet_file_picks_no_split(tmp_path, cache):
    datasets = pytest.importorskip("datasets")
    write_png(tmp_path / "0.png", GREY)
    cell = {"bytes": (tmp_path / "0.png").read_bytes(), "path": None}
    table = datasets.Dataset.from_dict({"image": [cell], "label": [0]})
    (tmp_path / "set").mkdir()
    for name in ("my-test-shots", "others"):
        table.to_parquet(tmp_path / "set" / f"{name}.parquet")
    assert len(load_data(tmp_path / "set")) == 2


def test_the_names_that_a_table_declares_are_kept(tmp_path, cache):
    datasets = pytest.importorskip("datasets")
    write_png(tmp_path / "0.png", GREY)
    cell = {"bytes": (tmp_path / "0.png").read_bytes(), "path": None}
    table = datasets.Dataset.from_dict({"image": [cell], "label": [1]})
    table.cast_column("label", datasets.ClassLabel(names=["ant", "bee"])).to_parquet(
        tmp_path / "set.parquet"
    )
    data = load_data(tmp_path / "set.parquet")
    assert data.class_names == ("ant", "bee") and data.labels.tolist() == [1]


def test_a_set_of_the_hub_reads_files_that_were_downloaded_and_no_others(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    for path in ("hub/0.png", "token.png"):
        write_png(tmp_path / path, GREY)
    (tmp_path / "token.png").rename(tmp_path / "token")
    cells = [{"bytes": None, "path": str(tmp_path / path)} for path in ("hub/0.png", "token")]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    part = datasets.Dataset.from_dict({"image": cells}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": part})
    data = load_data("hub:me/set")
    assert data.read([0]).shape == (1, 1, 6, 5)
    with pytest.raises(
        ValueError,
        match=r"column 'image': expected .* in row [12], counted from [01], .*not opened",
    ):
        data.read([1])
