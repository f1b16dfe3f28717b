"""Image files, in folders and in Parquet, as the datasets library reads them."""

import numpy as np
import pytest
import torch

from db3kd.data import load_data

DRAW = np.random.RandomState(0)
GREY = DRAW.randint(0, 256, (6, 5)).astype(np.uint8)
COLOURED = DRAW.randint(0, 256, (6, 6, 5, 3)).astype(np.uint8)


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    """Keeps what the datasets library prepares inside the test's folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def write_png(path, array):
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(array).save(path)


def as_tensor(arrays):
    return torch.from_numpy(arrays.transpose(0, 3, 1, 2).copy()).float() / 255


def test_an_image_folder_is_read(tmp_path, cache):
    for row, image in enumerate(COLOURED):
        part = "train" if row < 4 else "test"
        write_png(tmp_path / "set" / part / "ab"[row % 2] / f"{row}.png", image)
    train, test = load_data(tmp_path / "set"), load_data(tmp_path / "set", "test")
    assert (len(train), len(test), train.classes, train.name) == (4, 2, 2, "set-train")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert train.read([2, 0]).equal(as_tensor(COLOURED[[1, 0]]))
    assert test.subset([1]).read([0]).equal(as_tensor(COLOURED[[5]]))
    assert train.fingerprint() != test.fingerprint()


def test_a_grey_image_folder_has_one_channel(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", GREY)
    write_png(tmp_path / "set" / "b" / "1.png", COLOURED[0])
    data = load_data(tmp_path / "set")
    assert data.read([0]).equal(torch.from_numpy(GREY[None, None]).float() / 255)
    with pytest.raises(ValueError, match=r"image 1 is coloured .*give channels=1 or channels=3"):
        data.read([1])
    assert load_data(tmp_path / "set", channels=3).read([1]).equal(as_tensor(COLOURED[:1]))
    assert load_data(tmp_path / "set", channels=1).read([0, 1]).shape == (2, 1, 6, 5)


def test_sixteen_bit_grey_is_scaled(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", np.full((4, 4), 0x8080, np.uint16))
    assert load_data(tmp_path / "set").read([0]).eq(128 / 255).all()


def test_images_of_mixed_size_need_a_size(tmp_path, cache):
    write_png(tmp_path / "set" / "a" / "0.png", np.full((8, 16, 3), 100, np.uint8))
    write_png(tmp_path / "set" / "a" / "1.png", np.full((20, 10, 3), 200, np.uint8))
    with pytest.raises(ValueError, match="image 1 is 20x10 and the first is 8x16; give size="):
        load_data(tmp_path / "set").read([0, 1])
    images = load_data(tmp_path / "set", size=4).read([0, 1])
    assert images.shape == (2, 3, 4, 4)
    assert images[0].eq(100 / 255).all() and images[1].eq(200 / 255).all()


def test_a_resized_image_keeps_its_middle(tmp_path, cache):
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 255
    write_png(tmp_path / "set" / "a" / "0.png", stripes)
    assert load_data(tmp_path / "set", size=4).read([0]).eq(1).all()


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


def test_parquet_without_images_lists_its_columns(tmp_path, cache):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"], "label": [0]}).to_parquet(tmp_path / "set.parquet")
    with pytest.raises(
        ValueError, match="expected a column of images, got the columns text, label"
    ):
        load_data(tmp_path / "set.parquet")


@pytest.mark.parametrize(
    ("spec", "hub_name", "side"),
    [
        ("cifar10", "uoft-cs/cifar10", 6),
        ("flowers102", "nelorth/oxford-flowers", 224),
        ("hub:me/set", "me/set", 6),
    ],
)
def test_a_hub_name_is_handed_to_the_hub(monkeypatch, spec, hub_name, side):
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
