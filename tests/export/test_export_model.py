"""Exported files: without options they decide as the student does, in batches of any size."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import db3kd
from db3kd.export import export_model
from db3kd.models import build_model, save_model
from db3kd.teachers import ModuleTeacher, load_teacher

SHAPE = (1, 8, 8)
NAMES = ("zero", "one", "zwölf", *"3456789")
FILES = ("m.onnx", "m.pt", "m.ts", "m.pt2", "m.safetensors")
GRAPHS = FILES[:1] + FILES[2:4]


def own_network(image_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(image_shape[1] * image_shape[2], classes))


def one_score(image_shape, classes):
    """A network with one score an image, [N], whose threshold is not 0."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Sigmoid(), nn.Flatten(0))


def balanced(network, shape):
    """Changes the last layer so that random images are in many classes."""
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        last.bias -= network(torch.rand(100, *shape)).mean(0)
    return network


def save_student(folder: Path, network: nn.Module) -> Path:
    """Saves a network of ten classes with names, of images from -1 to 1."""
    path = folder / "run" / "student.safetensors"
    path.parent.mkdir()
    declared = {"model": "lenet5-fifth", "image_shape": SHAPE, "classes": 10}
    return save_model(path, network, **declared, bounds=(-1, 1), class_names=NAMES)


@pytest.fixture
def student(tmp_path, module) -> Path:
    return save_student(tmp_path, balanced(module, SHAPE))


class Exports:
    """A student in each format. Tests must not change the files."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.folder = folder
        self.network = balanced(build_model("lenet5-fifth", SHAPE, 10), SHAPE)
        student = save_student(folder, self.network)
        self.results = {name: export_model(student, folder / name) for name in FILES}


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Exports:
    return Exports(tmp_path_factory.mktemp("exports"))


def test_nothing_is_written_but_the_files(exports):
    assert {file.name for file in exports.folder.iterdir()} == {"run", *FILES}


@pytest.mark.parametrize("name", FILES)
def test_a_file_decides_like_the_student_and_needs_no_options(exports, name):
    result, file = exports.results[name], exports.folder / name

    assert (result.path, result.images) == (file, 1000)
    assert result.classes_decided >= 2 and result.largest_difference < 1e-5
    exported = load_teacher(file, trust_code=True)
    assert (exported.image_shape, exported.classes, exported.bounds) == (SHAPE, 10, (-1.0, 1.0))
    assert exported.class_names == NAMES
    for count in (1, 37, 300):
        images = 2 * torch.rand(count, *SHAPE) - 1
        assert exported.decide(images).equal(exports.network(images).argmax(1))


@pytest.mark.parametrize(("name", "threshold"), [*((name, 0.3) for name in FILES), ("m.ts", 0.6)])
def test_a_network_with_one_score_keeps_its_threshold(tmp_path, name, threshold):
    torch.manual_seed(1)
    network = one_score(SHAPE, 2)
    teacher = ModuleTeacher(network, SHAPE, 2, class_names=("no", "yes"), threshold=threshold)
    factory = "test_export_model:one_score"

    export_model(teacher, tmp_path / name, model=factory)

    model = factory if name.endswith(".safetensors") else None
    exported = load_teacher(tmp_path / name, model=model, trust_code=True)
    images = torch.rand(37, *SHAPE)
    expected = (network(images) >= threshold).long()
    assert exported.decide(images).equal(expected)
    assert exported.class_names == ("no", "yes")


@pytest.mark.parametrize("name", GRAPHS)
def test_rows_of_a_table_are_exported(tmp_path, name):
    torch.manual_seed(0)
    network = balanced(build_model("mlp-quarter", (13,), 3), (13,))
    save_model(
        tmp_path / "t.safetensors", network, model="mlp-quarter", image_shape=(13,), classes=3
    )

    result = export_model(tmp_path / "t.safetensors", tmp_path / name)

    exported = load_teacher(tmp_path / name, trust_code=True)
    rows = torch.rand(37, 13)
    assert exported.image_shape == (13,)
    assert result.classes_decided >= 2
    assert exported.decide(rows).equal(network(rows).argmax(1))


@pytest.mark.parametrize("name", GRAPHS)
def test_colour_networks_are_exported(tmp_path, name):
    torch.manual_seed(0)
    network = build_model("alexnet-quarter", (3, 12, 12), 4).eval()
    export_model(ModuleTeacher(network, (3, 12, 12), 4), tmp_path / name)

    images = torch.rand(5, 3, 12, 12)
    exported = load_teacher(tmp_path / name, trust_code=True)
    assert exported.decide(images).equal(network(images).argmax(1))


@pytest.mark.parametrize("name", GRAPHS)
def test_half_precision_weights_take_float32_images(tmp_path, name):
    torch.manual_seed(0)
    teacher = ModuleTeacher(build_model("linear", SHAPE, 3).half(), SHAPE, 3)
    export_model(teacher, tmp_path / name)
    images = torch.rand(37, *SHAPE)
    exported = load_teacher(tmp_path / name, trust_code=True)
    assert exported.decide(images).equal(teacher.decide(images))


@pytest.mark.parametrize("name", GRAPHS)
def test_preprocessing_becomes_part_of_the_graph(tmp_path, module, name):
    save_model(
        tmp_path / "s.safetensors", module, model="lenet5-fifth", image_shape=SHAPE, classes=10
    )
    (tmp_path / "s.toml").write_text(
        'file = "s.safetensors"\n[preprocessing]\nbounds = [0, 255]\nscale = [0, 1]\n'
        "resize = [8, 8]\nmean = 0.25\nstd = 0.5\n"
    )
    described = load_teacher(tmp_path / "s.toml", image_shape=(1, 16, 16))

    export_model(described, tmp_path / name)

    exported = load_teacher(tmp_path / name, trust_code=True)
    assert (exported.image_shape, exported.bounds) == ((1, 16, 16), (0.0, 255.0))
    images = 255 * torch.rand(37, 1, 16, 16)
    resized = nn.functional.interpolate(images / 255, (8, 8), mode="bilinear", antialias=True)
    assert exported.decide(images).equal(module((resized - 0.25) / 0.5).argmax(1))
    with pytest.raises(ValueError, match=r"weights cannot hold the preprocessing of s\.toml"):
        export_model(described, tmp_path / "m.safetensors", model="lenet5-fifth")


def test_own_networks_are_named(tmp_path):
    factory = "test_export_model:own_network"
    save_model(
        tmp_path / "s.safetensors",
        own_network(SHAPE, 3),
        model=factory,
        image_shape=SHAPE,
        classes=3,
    )
    with pytest.raises(ValueError, match="a file cannot choose which code runs, so repeat the"):
        export_model(tmp_path / "s.safetensors", tmp_path / "m.onnx")

    export_model(tmp_path / "s.safetensors", tmp_path / "m.onnx", model=factory)
    assert load_teacher(tmp_path / "m.onnx").classes == 3


def test_plain_weights_need_shape_and_classes(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "s.pt")
    save_file(module.state_dict(), tmp_path / "s.safetensors")
    given = {"model": "lenet5-fifth", "image_shape": SHAPE, "classes": 10}
    with pytest.raises(ValueError, match="holds only weights; pass model="):
        export_model(tmp_path / "s.safetensors", tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"expected a file of save_model.*got 's\.pt'"):
        export_model(tmp_path / "s.pt", tmp_path / "m.onnx", **given)

    export_model(tmp_path / "s.safetensors", tmp_path / "m.safetensors", **given)
    assert load_teacher(tmp_path / "m.safetensors").classes == 10


def test_a_folder_has_one_student(tmp_path, student):
    folder = student.parent
    export_model(folder, tmp_path / "m.ts")
    student.rename(folder / "student-seed0.safetensors")
    export_model(folder, tmp_path / "m.ts")  # replaced
    (folder / "student-seed1.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"one student in .*student-seed0.*student-seed1"):
        export_model(folder, tmp_path / "m.ts")
    with pytest.raises(FileNotFoundError, match=r"expected student\.safetensors in .*no student"):
        export_model(tmp_path, tmp_path / "m.ts")


def test_the_metadata_are_in_the_format_s_own_place(exports):
    expected = {
        "format": "db3kd-teacher-1",
        "image_shape": [1, 8, 8],
        "classes": 10,
        "bounds": [-1.0, 1.0],
        "class_names": list(NAMES),
    }
    properties = {
        each.key: each.value for each in onnx.load(exports.folder / "m.onnx").metadata_props
    }
    with safe_open(exports.folder / "m.safetensors", "pt") as file:
        header = file.metadata()
    assert header.pop("model") == "lenet5-fifth"
    for found in (properties, header):
        assert found.pop("format") == expected["format"]
        assert {key: json.loads(value) for key, value in found.items()} == {
            key: value for key, value in expected.items() if key != "format"
        }
    files = {"db3kd.json": ""}
    torch.export.load(exports.folder / "m.pt2", extra_files=files)
    assert json.loads(files["db3kd.json"]) == expected


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.safetensors"])
def test_a_file_has_no_traces_of_the_machine(exports, name):
    file = exports.folder / name
    contents = [file.read_bytes()]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            contents = [archive.read(entry) for entry in archive.namelist()]
    package = str(Path(db3kd.__file__).parent).encode()
    assert not any(package in content for content in contents)


def test_the_onnx_graph_is_valid_and_names_its_tensors(exports):
    model = onnx.load(exports.folder / "m.onnx")
    onnx.checker.check_model(model)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["images", "scores"]


def python_blocks() -> list[str]:
    page = Path(__file__).parents[2] / "docs" / "deploy.md"
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_loaders_in_the_documentation_run(exports, tmp_path, monkeypatch):
    for kind in ("onnx", "pt2"):
        shutil.copy(exports.folder / f"m.{kind}", tmp_path / f"student.{kind}")
    monkeypatch.chdir(tmp_path)
    plain, runtime, _picture, _loaded, names, *_ = python_blocks()
    images = torch.rand(37, *SHAPE)
    expected = exports.network(images).argmax(1)

    found = {"images": images}
    exec(plain, found)
    assert found["classes"].equal(expected)
    found["images"] = images.numpy()
    exec(runtime, found)
    assert np.array_equal(found["classes"], expected.numpy())
    exec(names, found)
    assert found["names"] == list(NAMES)
    for block in (plain, runtime):
        assert len([line for line in block.splitlines() if line]) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("count", [1, 37])
def test_files_run_without_db3kd_in_batches_of_any_size(exports, count):
    images = torch.rand(count, *SHAPE)
    session = onnxruntime.InferenceSession(exports.folder / "m.onnx")
    (scores,) = session.run(None, {"images": images.numpy()})

    for found in (
        torch.from_numpy(scores),
        torch.export.load(exports.folder / "m.pt2").module()(images),
        torch.jit.load(exports.folder / "m.ts")(images),
    ):
        torch.testing.assert_close(found, exports.network(images))
