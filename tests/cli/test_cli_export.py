"""`db3kd export`: options, the files that other commands load, and errors."""

import numpy as np
import pytest
import torch
from command_line import fail, succeed
from PIL import Image
from torch import nn

from db3kd.models import build_model, save_model

NAMES = [f"digit {number}" for number in range(10)]


def own_network(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    return save_model(
        tmp_path / "run" / "student.safetensors",
        build_model("linear", (1, 8, 8), 10),
        model="linear",
        image_shape=(1, 8, 8),
        classes=10,
        class_names=NAMES,
    )


@pytest.mark.parametrize(
    ("format", "name"), [("onnx", "student.onnx"), ("torchscript", "student.pt")]
)
def test_a_file_beside_the_student_needs_no_options(student, format, name):
    printed = succeed("export", student, "--format", format, "--data", "digits")

    out = student.with_name(name)
    expected = "makes the same decisions as student.safetensors on 1,000 images"
    assert printed.startswith(f"{out}: {expected}\n")
    pairs = ("--model", out, "--agree-with", student, "--data", "digits", "--trust-code")
    agreement = succeed("evaluate", *pairs, "--device", "cpu")
    assert "agreement  100.00%" in agreement
    described = succeed("info", "--teacher", out, "--trust-code")
    assert "digit 9" in described


def test_the_student_of_a_folder_and_the_suffix_are_enough(tmp_path, student):
    succeed("export", student.parent, "--out", tmp_path / "new" / "s.pt2")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["s.pt2"]


def test_a_folder_of_students_names_the_folders_to_choose_from(tmp_path, student):
    for number in range(7):
        copy = tmp_path / "compared" / f"auto-{number}" / student.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(student.read_bytes())
    names = ", ".join(str(tmp_path / "compared" / f"auto-{number}") for number in range(5))

    for command in (("export", "--out", tmp_path / "s.onnx"), ("evaluate", "--data", "digits")):
        message = fail(*command, tmp_path / "compared")
        assert "got no student of its own; choose one of the folders with a student: " in message
        assert message.endswith(f"{names}, …")


def test_a_folder_without_splits_is_enough_to_check_on(tmp_path, student):
    for number in range(3):
        pixels = np.full((8, 8), 60 * number, np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    command = ("export", student, "--data", tmp_path / "pictures", "--out", tmp_path / "s.pt2")
    assert "--split" in fail(*command, "--split", "other")
    assert "the same decisions" in succeed(*command)


def test_own_networks_are_named(tmp_path, student):
    factory = "test_cli_export:own_network"
    path = save_model(
        tmp_path / "own.safetensors",
        own_network((1, 8, 8), 10),
        model=factory,
        image_shape=(1, 8, 8),
        classes=10,
    )
    arguments = ("export", path, "--format", "pt2")
    assert "so repeat the name as --model" in fail(*arguments)
    succeed(*arguments, "--model", factory)


def test_wrong_arguments_are_named_and_write_nothing(tmp_path, student):
    other = tmp_path / "other.npz"
    np.savez(other, x_test=np.zeros((20, 9, 9), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    for arguments, words in [
        ((student,), "error: --format: expected onnx, torchscript, pt2 or"),
        ((student, "--format", "onnx", "--out", tmp_path / "s.pt"), "--out: expected a name endi"),
        ((student, "--out", tmp_path / "s.xml"), "--out: expected a name ending in .onnx,"),
        ((student, "--format", "safetensors"), "already exists; pass another --out"),
        ((tmp_path / "none", "--format", "pt2"), "none; expected a weights file or a run folder"),
        ((student, "--format", "pt2", "--data", other), "images: expected [N, 1, 8, 8]"),
    ]:
        assert words in fail("export", *arguments)
    assert sorted(tmp_path.rglob("*")) == before
