"""IDX and NumPy files: what they hold, and and that broken or false ones do no harm."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data

DRAW = np.random.RandomState(0)
BYTES = DRAW.randint(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_idx_set(folder, images=BYTES, labels=LABELS, part="train", suffix=""):
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)


# IDX


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_directory_of_idx_files_is_read(tmp_path, suffix):
    write_idx_set(tmp_path, suffix=suffix)
    write_idx_set(tmp_path, BYTES[:4], LABELS[:4] * 0, "t10k", suffix)
    train, test = load_data(tmp_path), load_data(str(tmp_path), "test")
    assert train.read([11, 4]).equal(ImageSet.from_arrays(BYTES).read([11, 4]))
    assert train.labels.tolist() == LABELS.tolist()
    assert (len(test), test.classes) == (4, 3), "classes are counted over both splits"


def test_raw_and_gzipped_idx_are_the_same_set(tmp_path):
    for folder, suffix in ((tmp_path / "raw", ""), (tmp_path / "gz", ".gz")):
        folder.mkdir()
        write_idx_set(folder, suffix=suffix)
    assert load_data(tmp_path / "raw").fingerprint() == load_data(tmp_path / "gz").fingerprint()


def test_idx_images_may_come_without_labels(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", BYTES)
    assert load_data(tmp_path).labels is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-1], "expected 376 bytes for .12, 6, 5., got 375"),
        (lambda content: content + b"x", "expected 376 bytes"),
        (
            lambda content: b"\0\0\x0d\3" + content[4:],
            "expected an IDX file of bytes in 3 dimensions",
        ),
        (lambda content: content[:7], "expected an IDX file"),
        (lambda content: b"", "expected an IDX file"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path, spoil, message):
    write_idx_set(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=f"train-images-idx3-ubyte: {message}"):
        load_data(tmp_path)


@pytest.mark.parametrize("spoil", [lambda content: content[:-9], lambda content: b"no gzip"])
def test_a_broken_gzip_is_named(tmp_path, spoil):
    write_idx_set(tmp_path, suffix=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"ubyte.gz: expected a valid gzipped IDX file"):
        load_data(tmp_path)


def test_idx_files_of_different_length_are_refused(tmp_path):
    write_idx_set(tmp_path, labels=LABELS[:7])
    with pytest.raises(ValueError, match="of train, got 12 images and 7 labels"):
        load_data(tmp_path)


def test_an_empty_idx_file_is_an_empty_set(tmp_path):
    write_idx_set(tmp_path, BYTES[:0], LABELS[:0])
    with pytest.raises(ValueError, match="the set is empty"):
        load_data(tmp_path)


# NumPy files


def test_an_npz_of_two_splits_is_read(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=BYTES, y_train=LABELS, x_test=BYTES[:2], y_test=LABELS[:2])
    assert load_data(path).read([5]).equal(ImageSet.from_arrays(BYTES).read([5]))
    test = load_data(path, "test")
    assert (len(test), test.classes, test.name) == (2, 3, "set, split test")


def test_an_npz_of_images_and_labels_is_a_train_split(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=BYTES, labels=LABELS)
    assert load_data(path).labels.tolist() == LABELS.tolist()
    with pytest.raises(ValueError, match="has 'train', got 'test'"):
        load_data(path, "test")


def test_a_single_array_of_an_npz_holds_images_without_labels(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, BYTES)
    loaded = load_data(path)
    assert len(loaded) == len(BYTES) and loaded.labels is None
    np.savez(path, x_train=BYTES)
    assert load_data(path).labels is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"pixels": BYTES, "classes": LABELS},
            "expected images and labels, or x_train and y_train, got pixels, classes",
        ),
        ({"x_train": BYTES, "y_train": LABELS[:3]}, "expected 12 classes"),
        ({"images": np.array([{}, []], dtype=object)}, "expected plain arrays"),
        ({"images": BYTES, "labels": LABELS[:3]}, "expected 12 classes"),
    ],
)
def test_the_error_of_an_invalid_npz_gives_the_reason(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "set.npz")


@pytest.mark.parametrize("name", ["set.npz", "set.npy"])
def test_a_corrupt_numpy_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing of the kind")
    with pytest.raises(ValueError, match=f"{name}: expected .* numpy could not read"):
        load_data(tmp_path / name)


def test_an_npy_file_is_images_alone(tmp_path):
    np.save(tmp_path / "set.npy", BYTES)
    data = load_data(tmp_path / "set.npy", classes=3)
    assert data.labels is None and data.classes == 3
    assert data.read([2]).equal(ImageSet.from_arrays(BYTES).read([2]))


def test_images_without_pixels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 0, 4), np.float32))
    with pytest.raises(ValueError, match=r"a: expected .* sizes of at least 1, got \[N, 0, 4\]"):
        load_data(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["idx", "npy"])
def test_memory_does_not_grow_with_what_is_read(tmp_path, kind):
    images = np.zeros((4000, 28, 28), np.uint8)
    if kind == "idx":
        write_idx_set(tmp_path, images, np.zeros(4000, np.uint8))
        data = load_data(tmp_path)
    else:
        np.save(tmp_path / "set.npy", images)
        data = load_data(tmp_path / "set.npy")
    resident = memory_in_files()
    tracemalloc.start()
    for start in range(0, 4000, 100):
        data.read(range(start, start + 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 10
    assert memory_in_files() - resident < images.nbytes / 2


def memory_in_files() -> int:
    """Bytes of mapped files that are resident in this process (Linux); 0 elsewhere."""
    try:
        with open("/proc/self/status") as status:
            return next(
                int(line.split()[1]) * 1024 for line in status if line.startswith("RssFile")
            )
    except (OSError, StopIteration):
        return 0


@pytest.mark.parametrize("cut", [10, 60, 400, -30])
def test_a_truncated_npz_is_named(tmp_path, cut):
    np.savez(tmp_path / "set.npz", images=BYTES, labels=LABELS)
    content = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(content[:cut])
    with pytest.raises(ValueError, match=r"set.npz: expected plain arrays"):
        load_data(tmp_path / "set.npz")


# Files whose headers are false


def test_a_file_that_would_fill_the_memory_is_not_decompressed(tmp_path, monkeypatch):
    monkeypatch.setenv("DB3KD_MAX_DECOMPRESSED_GIB", "0.001")
    images = np.zeros((2000, 28, 28), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", images=images[:10], labels=LABELS[:10], huge=images)
    assert len(load_data(tmp_path / "set.npz")) == 10, "what is not needed is not read"
    np.savez_compressed(tmp_path / "huge.npz", images=images)
    (tmp_path / "idx").mkdir()
    write_idx(tmp_path / "idx" / "train-images-idx3-ubyte.gz", images)
    tracemalloc.start()
    for name in ("huge.npz", "idx"):
        with pytest.raises(
            ValueError, match=r"at most 0.001 GiB once .*DB3KD_MAX_DECOMPRESSED_GIB"
        ):
            load_data(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < images.nbytes / 4
    tracemalloc.stop()
    monkeypatch.setenv("DB3KD_MAX_DECOMPRESSED_GIB", "1")
    assert len(load_data(tmp_path / "huge.npz")) == len(load_data(tmp_path / "idx")) == 2000


@pytest.mark.parametrize("declared", [1000, 200_000])
def test_an_npz_larger_than_its_header_declares_is_not_decompressed(tmp_path, declared):
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=np.zeros((50_000, 1000), np.uint8))
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<I", declared)
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"set.npz: expected plain arrays"):
        load_data(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_gzip_larger_than_its_header_declares_is_not_decompressed(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2, 4, 4)
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"expected 48 bytes for \[2, 4, 4\], got more"):
        load_data(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_an_idx_header_whose_sizes_overflow_is_refused(tmp_path):
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    with pytest.raises(ValueError, match="expected 79228162458924105385300197391 bytes"):
        load_data(tmp_path)
