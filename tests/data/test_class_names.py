"""Classes of data and of a teacher, matched by their names from end to end."""

import itertools
import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import fail, succeed
from label_runs import write_run
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from served_doubles import Answer, Loopback
from torch import nn

import db3kd
from db3kd.data import class_names
from db3kd.data.class_names import match_classes, renumbered
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import open_run
from db3kd.models import save_model
from db3kd.pipelines.inputs import check_test
from db3kd.storage.manifest import plain, read_manifest
from db3kd.teachers import FunctionTeacher, load_teacher

SHAPE = (1, 8, 8)
FOLDERS = ("ant", "bee", "cow", "dog")
TEACHERS_ORDER = ("dog", "bee", "ant", "cow")
WRONG = 4
"""Of each split, so many images lie in the folder of another class."""


@pytest.fixture(autouse=True)
def nothing_logged_yet(monkeypatch):
    monkeypatch.setattr(class_names, "_logged", set())


def drawn(count, seed):
    """Images whose class is their brightest quadrant, and that quadrant."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 100, (count, 8, 8), dtype=torch.uint8, generator=generator)
    quadrant = torch.arange(count) % 4
    for image, place in zip(images, quadrant.tolist(), strict=True):
        row, column = 4 * (place // 2), 4 * (place % 2)
        image[row : row + 4, column : column + 4] += 100
    return images.numpy(), quadrant


def weights():
    """[4, 64]: the brightness of each quadrant, in the teacher's order of the names."""
    pixels = torch.arange(64).view(8, 8)
    quadrants = [pixels[4 * (q // 2) :][:4, 4 * (q % 2) :][:, :4].flatten() for q in range(4)]
    table = torch.zeros(4, 64)
    for number, name in enumerate(TEACHERS_ORDER):
        table[number, quadrants[FOLDERS.index(name)]] = 1 / 16
    return table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """data/train and data/test of 40 images each, in folders of their classes' names."""
    root = tmp_path_factory.mktemp("named") / "data"
    for seed, split in enumerate(("train", "test")):
        for number, (image, place) in enumerate(zip(*drawn(40, seed), strict=True)):
            name = FOLDERS[(int(place) + (number < WRONG)) % 4]
            file = root / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return root


class Quadrants(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(weights())

    def forward(self, images):
        return images.flatten(1) @ self.weights.T


def quadrants(image_shape, classes):
    return Quadrants()


def torch_teacher(path, server=None):
    """A weights file that names its classes."""
    file = path / "torch.safetensors"
    save_model(
        file,
        Quadrants(),
        model=f"{__name__}:quadrants",
        image_shape=SHAPE,
        classes=4,
        class_names=TEACHERS_ORDER,
    )
    return file, ("--architecture", f"{__name__}:quadrants")


def onnx_teacher(path, server=None):
    """An ONNX file, and a description with a label file."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quadrants",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weights().numpy().T.copy(), "weights")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path / "t.onnx")
    (path / "names.txt").write_text("\n".join(TEACHERS_ORDER))
    (path / "onnx.toml").write_text('file = "t.onnx"\nlabels = "names.txt"')
    return path / "onnx.toml", ()


def rest_teacher(path, server):
    """A JSON service that answers names."""
    (path / "names.txt").write_text("\n".join(TEACHERS_ORDER))
    described = {
        "url": server.url,
        "image_shape": list(SHAPE),
        "labels": "names.txt",
        "rest": {"request": {"x": "$images"}, "answer": "*"},
    }
    (path / "rest.json").write_text(json.dumps(described))
    return path / "rest.json", ()


@pytest.fixture(scope="module")
def server():
    table = weights()

    def answer(asked):
        images = torch.tensor(json.loads(asked.body)["x"])
        numbers = (images.flatten(1) @ table.T).argmax(1).tolist()
        return Answer.of([TEACHERS_ORDER[number] for number in numbers])

    with Loopback(answer) as found:
        yield found


@pytest.mark.parametrize("make", [torch_teacher, onnx_teacher, rest_teacher])
def test_a_folder_in_another_order_than_the_teacher(make, folder, server, tmp_path):
    teacher, options = make(tmp_path, server)

    evaluated = succeed("evaluate", "--model", teacher, "--data", folder, *options)
    assert "accuracy   90.00% (36 of 40 images)" in evaluated

    run, student = tmp_path / "run", tmp_path / "student.safetensors"
    labelling = ("--measure", "sd", "--out", run)
    summary = succeed("label", "--teacher", teacher, "--data", folder, *labelling, *options)
    assert "4 of 40 samples in another class" in summary
    labels = db3kd.load_labels(run)
    assert read_manifest(run)["settings"]["class_names"] == list(TEACHERS_ORDER)
    assert (labels.label != labels.decision).sum() == WRONG

    training = ("--model", "lenet5-fifth", "--steps", 40, "--batch-size", 40, "--scale", 1)
    seen = ("--labels", run, "--data", folder)
    succeed("distill", *seen, "--out", student, "--learning-rate", 0.02, *training)
    accuracy = json.loads(student.with_suffix(".json").read_text())["test_accuracy"]
    assert accuracy == 0.9
    assert load_teacher(student).class_names == TEACHERS_ORDER
    compared = () if options else ("--agree-with", teacher)  # an architecture is of both
    again = succeed("evaluate", "--model", student, "--data", folder, *compared)
    assert "accuracy   90.00%" in again and ("agreement  100.00%" in again or not compared)

    report = succeed("report", *seen, "--out", tmp_path / "report")
    assert "4 of 40 samples in another class" in Path(report.strip()).read_text()


def test_the_pictures_of_a_report_name_the_classes(folder, tmp_path, monkeypatch):
    write_run(
        tmp_path / "run",
        load_teacher(torch_teacher(tmp_path)[0], model=f"{__name__}:quadrants"),
        Source(str(folder)),
        db3kd.LabelSettings("sd"),
    )
    drawn_names = []
    monkeypatch.setattr(
        "db3kd.report.pages.sample_grid",
        lambda *_, class_names, **__: drawn_names.append(class_names),
    )
    monkeypatch.setattr(
        "db3kd.report.pages.class_distance_matrix",
        lambda *_, class_names, **__: drawn_names.append(class_names),
    )
    succeed("report", "--labels", tmp_path / "run", "--data", folder)
    assert drawn_names == [TEACHERS_ORDER] * 2


def test_labels_in_python_are_numbered_as_the_teachers_classes(folder):
    def decide(images):
        return (images.reshape(len(images), -1) @ weights().numpy().T).argmax(1)

    images = load_data(folder)
    teacher = FunctionTeacher(decide, SHAPE, 4, class_names=TEACHERS_ORDER)
    labels = db3kd.label(teacher, images, db3kd.LabelSettings("sd"))

    named = [TEACHERS_ORDER[label] for label in labels.label.tolist()]
    assert named == [FOLDERS[label] for label in images.labels.tolist()]
    assert (labels.label == labels.decision).sum() == 40 - WRONG
    real = check_test(load_data(folder, "train"), teacher)
    assert [TEACHERS_ORDER[label] for label in real.labels] == named


def image_set(labels, names=None, classes=None):
    images = np.zeros((len(labels), *SHAPE), np.float32)
    return ImageSet.from_arrays(images, labels, "some", classes, names)


def test_data_may_lack_classes_of_the_teacher():
    matched = match_classes(image_set([0, 1, 1], ["cow", "ant"]), TEACHERS_ORDER, 4, "teacher t")
    assert matched.labels.tolist() == [3, 2, 2]
    assert (matched.class_names, matched.classes) == (TEACHERS_ORDER, 4)


def test_a_name_without_images_need_not_be_known():
    matched = match_classes(image_set([0, 1], ["cow", "ant", "yak"]), TEACHERS_ORDER, 4, "t")
    assert matched.labels.tolist() == [3, 2]


def test_names_are_equal_but_for_spaces_around_them():
    matched = match_classes(image_set([0, 1], ["cow ", " ant"]), TEACHERS_ORDER, 4, "t")
    assert matched.labels.tolist() == [3, 2]


def test_names_that_differ_are_listed_on_both_sides():
    images = image_set([0, 1, 2, 3], ["Ant", "bee", "cow", "polar bear"])
    with pytest.raises(ValueError) as error:
        match_classes(images, ("ant", "bee", "cow", "polar_bear", "yak"), 5, "teacher t")
    text = str(error.value)
    assert 'Only in data some: "Ant", "polar bear". ' in text
    assert 'Only in teacher t: "ant", "polar_bear", "yak"' in text
    assert 'Perhaps "Ant" is "ant", "polar bear" is "polar_bear"' in text


def test_names_that_look_alike_are_shown_with_their_characters():
    images = image_set([0, 1], ["caf\u00e9", "ant"])
    with pytest.raises(ValueError, match=r'Perhaps "caf\\u00e9" is "cafe\\u0301": .* Unicode'):
        match_classes(images, ("cafe\u0301", "ant"), 2, "teacher t")


def test_only_listed_names_are_compared_with_each_of_the_others(monkeypatch):
    compared = []
    monkeypatch.setattr(
        class_names.difflib, "get_close_matches", lambda name, *_, **__: compared.append(name) or []
    )
    names = [f"Klasse {number}" for number in range(50)] + ["polar bear"]
    others = [f"number {number}" for number in range(50)] + ["Polar_Bear"]
    with pytest.raises(ValueError, match='Perhaps "polar bear" is "Polar_Bear"'):
        class_names.class_table(names, others, torch.arange(51), "data", "teacher")
    assert len(compared) == 10


def test_other_names_are_refused_before_the_first_query(folder, tmp_path):
    teacher = tmp_path / "t.safetensors"
    save_model(
        teacher,
        Quadrants(),
        model=f"{__name__}:quadrants",
        image_shape=SHAPE,
        classes=4,
        class_names=("dog", "bee", "emu", "cow"),
    )
    options = ("--teacher", teacher, "--architecture", f"{__name__}:quadrants", "--data", folder)
    text = fail("label", *options, "--measure", "sd", "--out", tmp_path / "run")
    assert '"ant"' in text and '"emu"' in text and not (tmp_path / "run").exists()


@pytest.mark.parametrize("teachers", [None, TEACHERS_ORDER])
def test_if_only_one_side_has_names_one_warning_states_the_order(teachers, caplog):
    images = image_set([3, 0], None if teachers else FOLDERS, 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            matched = match_classes(images, teachers, 4, "teacher t")
    assert matched.labels.tolist() == [3, 0]
    assert matched.class_names == (teachers or FOLDERS)
    (record,) = caplog.records
    order = ", ".join(f"{number} = {name}" for number, name in enumerate(teachers or FOLDERS))
    assert order in record.message and "teacher t" in record.message


def test_without_any_names_nothing_is_logged(caplog):
    images = image_set([1, 0])
    assert match_classes(images, None, 4, "t") is images and not caplog.records


def test_folders_called_by_numbers_are_in_the_order_of_these_numbers(caplog):
    names = sorted(map(str, range(12)))
    matched = match_classes(image_set(list(range(12)), names), None, 12, "t")
    assert matched.labels.tolist() == [int(name) for name in names]
    some = match_classes(image_set([0, 1, 2], ["10", "3", "7"]), None, 12, "t")
    assert some.labels.tolist() == [10, 3, 7] and some.class_names[10] == "10"
    from_one = sorted(map(str, range(1, 12)))
    matched = match_classes(image_set(list(range(11)), from_one), None, 11, "t")
    assert matched.labels.tolist() == [int(name) - 1 for name in from_one]
    assert "0 = 1, 1 = 2" in caplog.records[-1].message


def test_additional_classes_of_a_teacher_without_names_get_generated_names():
    assert match_classes(image_set([0], ["cow"]), None, 3, "t").class_names == (
        "cow",
        "class 1",
        "class 2",
    )
    names = match_classes(image_set([0, 1], ["cow", "class 2"]), None, 3, "t").class_names
    assert len(set(names)) == 3


def test_decisions_of_two_teachers_are_compared_by_name(caplog):
    decisions = torch.tensor([0, 3, -1, 1])
    assert renumbered(decisions, FOLDERS, TEACHERS_ORDER, "a", "b").tolist() == [2, 0, -1, 1]
    with pytest.raises(ValueError, match='Only in a: "cat"'):
        renumbered(decisions, ("cat", "bee", "ant", "dog"), TEACHERS_ORDER, "a", "b")
    assert not caplog.records
    assert renumbered(decisions, FOLDERS, None, "a", "b").equal(decisions)
    assert "b does not name its classes" in caplog.records[0].message


def test_the_parts_of_a_data_set_are_warned_of_once(caplog):
    for split in ("train", "test"):
        for labels, names, given in (([0, 1], ["yes", "no"], None), ([0, 1], None, ("no", "yes"))):
            part = image_set(labels, names)
            part.name = f"polls, split {split}"
            match_classes(part, given, 2, "teacher x")
    unnamed, numbers = (record.message for record in caplog.records)
    assert unnamed.startswith("polls, split train: teacher x does not name its classes")
    assert unnamed.endswith(
        "pass class_names= to the teacher, or declare labels in a description file"
    )
    assert numbers.startswith("polls, split train: its classes are numbers")


def test_a_surrogate_of_another_order_is_refused(folder, tmp_path):
    teacher, options = torch_teacher(tmp_path)
    network = db3kd.build_model("lenet5-fifth", SHAPE, 4)
    file = save_model(
        tmp_path / "surrogate.safetensors",
        network,
        model="lenet5-fifth",
        image_shape=SHAPE,
        classes=4,
        class_names=FOLDERS,
    )
    text = fail(
        *("label", "--teacher", teacher, "--data", folder, "--surrogate", file),
        *("--out", tmp_path / "run", *options),
    )
    assert "expected the teacher's class names in the same order" in text


def test_a_teacher_trained_on_named_folders_has_their_names(folder, tmp_path):
    out = tmp_path / "teacher.safetensors"
    succeed("teacher", "--data", folder, "--model", "lenet5-fifth", "--epochs", 1, "--out", out)
    assert load_teacher(out).class_names == FOLDERS
    assert "class names    ant, bee, cow, dog" in succeed("info", "--teacher", out)


def test_pseudo_samples_have_the_teachers_names(tmp_path):
    def decide(images):
        return (images.reshape(len(images), -1) @ weights().numpy().T).argmax(1)

    teacher = FunctionTeacher(decide, SHAPE, 4, class_names=TEACHERS_ORDER, fingerprint="f")
    settings = db3kd.SynthesisSettings(samples=8, acquisition=None, moves=db3kd.Moves(count=0))
    db3kd.synthesize(teacher, settings, out=tmp_path / "run")

    assert db3kd.load_pseudo_samples(tmp_path / "run").class_names == TEACHERS_ORDER
    assert load_data(tmp_path / "run").class_names == TEACHERS_ORDER


def test_names_that_look_like_paths_stay_whole(tmp_path):
    names = ["/m/01g317", "/m/0k4j"]
    images = image_set([0, 1], names)
    numbers = itertools.cycle([1, 0])
    teacher = FunctionTeacher(
        lambda rows: [next(numbers) for _ in rows],
        SHAPE,
        2,
        class_names=names[::-1],
        fingerprint="f",
    )
    db3kd.label(teacher, images, db3kd.LabelSettings("sd"), out=tmp_path / "run")
    assert read_manifest(tmp_path / "run")["settings"]["class_names"] == names[::-1]
    assert plain({"a": {"class_names": names}}) == {"a": {"class_names": names}}


def test_a_run_finds_its_images_again_when_folders_are_numbered_otherwise(folder, tmp_path):
    teacher = load_teacher(torch_teacher(tmp_path)[0], model=f"{__name__}:quadrants")
    write_run(tmp_path / "run", teacher, Source(str(folder)), db3kd.LabelSettings("sd"))
    run = open_run(tmp_path / "run", str(folder))

    assert run.class_names == run.images.class_names == TEACHERS_ORDER
    assert run.images.labels.equal(run.labels.label)
    test = run.match(load_data(folder, "test"))
    assert (test.labels == teacher.decide(test.read(range(40)))).sum() == 40 - WRONG
