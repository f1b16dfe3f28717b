"""Images that are decoded once."""

import copy
import os
import pickle
import tempfile

import numpy as np
import pytest
import torch
from image_cases import write_png

from db3kd.data.files import decoded_images, image_files
from db3kd.data.files.decoded_images import DecodedImages
from db3kd.data.loading import load_data

PIXELS = torch.arange(2 * 3 * 4, dtype=torch.uint8).view(2, 3, 4)


@pytest.fixture
def decodings(monkeypatch):
    """The names of the images that are decoded."""
    names = []
    decode = image_files.decode_image

    def counted(content, where):
        names.append(where)
        return decode(content, where)

    monkeypatch.setattr(image_files, "decode_image", counted)
    return names


def folder(path, count=5):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), np.uint8)
    for row, image in enumerate(pixels):
        write_png(path / "a" / f"{row}.png", image)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def test_pixels_come_back_as_they_were_put():
    decoded = DecodedImages(3, (2, 3, 4))
    assert decoded.get(1, b"a") is None
    decoded.put(1, b"a", PIXELS.transpose(1, 2).contiguous().transpose(1, 2))
    assert decoded.get(1, b"a").equal(PIXELS)
    assert decoded.get(0, b"a") is None and decoded.get(1, b"b") is None
    decoded.put(1, b"b", 255 - PIXELS)
    assert decoded.get(1, b"b").equal(255 - PIXELS) and decoded.get(1, b"a") is None


def test_an_image_that_changes_is_decoded_again(tmp_path, cache):
    folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    before = images.fingerprint(check=True)
    changed = np.full((6, 5, 3), 7, np.uint8)
    write_png(tmp_path / "set" / "a" / "2.png", changed)
    assert images.read([2]).eq(7 / 255).all()
    assert images.fingerprint() != before
    (tmp_path / "set" / "a" / "2.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"2.png: expected an image"):
        images.read([2])


def test_each_image_of_a_folder_is_decoded_once(tmp_path, decodings, cache):
    truth = folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    images.check()
    for _ in range(3):
        assert images.read([4, 0, 2, 1, 3]).equal(truth[[4, 0, 2, 1, 3]])
    assert images.subset([3]).read([0]).equal(truth[3:4])
    first, *others = decodings  # the first image also gives the shape of the set
    assert sorted(others) == sorted({*others}) and len(others) == 5 and first in others


def test_digests_that_check_decode_for_later_reads(tmp_path, decodings, cache):
    truth = folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    images.fingerprint(check=True)
    before = len(decodings)
    assert images.read(range(5)).equal(truth)
    assert len(decodings) == before


def test_images_beyond_the_size_of_the_file_are_decoded_again(
    tmp_path, decodings, monkeypatch, cache
):
    monkeypatch.setattr(decoded_images, "MOST_BYTES", 2 * 6 * 5 * 3 + 1)
    truth = folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    for _ in range(2):
        assert images.read(range(5)).equal(truth)
    assert len(decodings) == 1 + 5 + 3


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda images: pickle.loads(pickle.dumps(images))]
)
def test_copies_read_the_same_images(copied, tmp_path, cache):
    truth = folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    images.check()
    assert copied(images).read(range(5)).equal(truth)


@pytest.mark.parametrize("fault", ["full disk", "short write", "no temporary folder"])
def test_images_are_decoded_again_if_they_cannot_be_kept(fault, tmp_path, monkeypatch, cache):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    if fault == "full disk":
        monkeypatch.setattr(os, "pwrite", fail)
    elif fault == "short write":
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda file, content, at: write(file, content[:-1], at))
    else:
        monkeypatch.setattr(tempfile, "mkstemp", fail)
    truth = folder(tmp_path / "set")
    images = load_data(tmp_path / "set")
    for _ in range(2):
        assert images.read(range(5)).equal(truth)


def test_images_with_sixteen_bits_keep_their_precision(tmp_path, cache):
    values = np.arange(30, dtype=np.uint16).reshape(6, 5) * 2000
    write_png(tmp_path / "set" / "a" / "0.png", values)
    images = load_data(tmp_path / "set")
    truth = torch.from_numpy(values.astype(np.float32) / 65535)
    for _ in range(2):
        assert images.read([0])[0, 0].allclose(truth, atol=1e-7)
