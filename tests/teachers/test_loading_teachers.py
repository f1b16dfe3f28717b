import pickle
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from teachers_analytic import ConstantTeacher, brightness
from torch import nn

from db3kd.models import save_model
from db3kd.models.networks import ResNet, build_model
from db3kd.named_import import import_named
from db3kd.teachers import (
    ModuleTeacher,
    Teacher,
    TeacherError,
    decide_checked,
    load_teacher,
)

SHAPE = (1, 8, 8)


def constant_teacher() -> Teacher:
    return ConstantTeacher(1, SHAPE, 3)


def small_factory(image_shape: tuple[int, ...], classes: int) -> nn.Module:
    return build_model("linear", image_shape, classes)


def test_a_saved_teacher_needs_no_arguments(tmp_path, module, images):
    path = save_model(
        tmp_path / "t.safetensors",
        module,
        model="lenet5-fifth",
        image_shape=SHAPE,
        classes=10,
        bounds=(0, 2),
    )
    teacher = load_teacher(path)
    assert (teacher.image_shape, teacher.classes, teacher.bounds) == (SHAPE, 10, (0.0, 2.0))
    original = ModuleTeacher(module, SHAPE, 10)
    assert teacher.decide(images).equal(original.decide(images))
    assert teacher.fingerprint() == original.fingerprint()
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.safetensors"]


def test_a_file_cannot_choose_which_code_runs(tmp_path):
    factory = "test_loading_teachers:small_factory"
    linear = small_factory(SHAPE, 3)
    path = save_model(
        tmp_path / "t.safetensors", linear, model=factory, image_shape=SHAPE, classes=3
    )
    with pytest.raises(ValueError, match="a file cannot choose which code runs"):
        load_teacher(path)
    assert load_teacher(path, model=factory).classes == 3


@pytest.mark.parametrize("nested", [False, True])
def test_a_state_dict_is_read_into_a_model(tmp_path, module, images, nested):
    state = module.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if nested else state, tmp_path / "t.pth")
    teacher = load_teacher(tmp_path / "t.pth", model="lenet5-fifth", image_shape=SHAPE, classes=10)
    assert teacher.decide(images).equal(module(images).argmax(1))


def test_weights_alone_need_their_model(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "t.pt")
    with pytest.raises(ValueError, match="holds only weights; pass model=, the name of their"):
        load_teacher(tmp_path / "t.pt")
    with pytest.raises(ValueError, match="pass image_shape= and classes="):
        load_teacher(tmp_path / "t.pt", model="lenet5-fifth")


def test_weights_of_another_model_do_not_fit(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "t.pt")
    with pytest.raises(TeacherError, match="its weights do not fit lenet5 ") as raised:
        load_teacher(tmp_path / "t.pt", model="lenet5", image_shape=SHAPE, classes=10)
    message = str(raised.value)
    assert "features.0.weight is [" in message and " more differ; correct model=, " in message
    assert "state_dict" not in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("changed", [{"image_shape": (3, 8, 8)}, {"classes": 7}])
def test_a_declaration_that_its_file_contradicts_is_named_with_the_first_size(
    tmp_path, module, changed
):
    file = tmp_path / "t.safetensors"
    save_model(file, module, model="lenet5-fifth", image_shape=SHAPE, classes=10)
    with pytest.raises(TeacherError) as raised:
        load_teacher(file, **changed)
    message = str(raised.value)
    assert message.endswith(f"(the file declares images {SHAPE} and 10 classes)")
    assert message.count(" in the file and ") == 1 and "copying a param" not in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_read_without_a_warning(tmp_path, module, images, recwarn):
    torch.jit.trace(module.eval(), images).save(tmp_path / "t.pt")
    recwarn.clear()
    teacher = load_teacher(
        tmp_path / "t.pt", image_shape=SHAPE, classes=10, max_batch=6, trust_code=True
    )
    assert not recwarn.list
    assert decide_checked(teacher, images).equal(module(images).argmax(1))
    assert len(teacher.fingerprint()) == 64


def export(module: nn.Module, path: Path, batch: int, dynamic: bool) -> None:
    sizes = ({0: torch.export.Dim("n")},) if dynamic else None
    program = torch.export.export(module.eval(), (torch.rand(batch, *SHAPE),), dynamic_shapes=sizes)
    torch.export.save(program, path)


@pytest.mark.parametrize(("batch", "dynamic"), [(2, True), (1, False), (8, False)])
def test_an_exported_program_is_read_with_its_shape(tmp_path, images, module, batch, dynamic):
    export(module, tmp_path / "t.pt2", batch, dynamic)
    teacher = load_teacher(tmp_path / "t.pt2", trust_code=True)
    assert (teacher.image_shape, teacher.classes) == (SHAPE, 10)
    assert teacher.max_batch == (256 if dynamic else batch)
    assert decide_checked(teacher, images).equal(module(images).argmax(1))


def test_an_exported_program_gets_batches_that_it_allows(tmp_path, images):
    linear = small_factory(SHAPE, 3)
    sizes = ({0: torch.export.Dim("n", min=3, max=6)},)
    program = torch.export.export(linear, (torch.rand(4, *SHAPE),), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "t.pt2")
    teacher = load_teacher(tmp_path / "t.pt2", max_batch=100, trust_code=True)
    assert teacher.max_batch == 6
    assert decide_checked(teacher, images).equal(linear(images).argmax(1))
    assert teacher.decide(images[:1]).equal(linear(images[:1]).argmax(1))


class Scores(nn.Module):
    """Returns scores in a container instead of a tensor."""

    def __init__(self, container) -> None:
        super().__init__()
        self.container = container

    def forward(self, images):
        return self.container(images.flatten(1))


def test_an_exported_program_must_return_only_scores(tmp_path, images):
    for container in (lambda scores: {"scores": scores}, lambda scores: (scores, scores + 1)):
        program = torch.export.export(Scores(container), (images,))
        torch.export.save(program, tmp_path / "t.pt2")
        with pytest.raises(
            TeacherError, match=r"wrap it so that it returns only|to a batch of scores"
        ):
            decide_checked(load_teacher(tmp_path / "t.pt2", trust_code=True), images)


def test_an_exported_resnet_is_read(tmp_path, images):
    module = ResNet(SHAPE, 10, blocks=(1, 0, 0, 0))
    export(module, tmp_path / "t.pt2", 2, True)
    assert (
        load_teacher(tmp_path / "t.pt2", trust_code=True)
        .decide(images)
        .equal(module(images).argmax(1))
    )


class Payload:
    """Unpickling this creates a marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def payload(tmp_path) -> Payload:
    return Payload(tmp_path / "marker")


# torch warns about a pickle protocol that it does not write itself, before it refuses the file.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", ["t.pt", "t.pth", "t.pt2", "t.safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickled_file_is_refused_without_unpickling(tmp_path, payload, name, writer):
    content = pickle.dumps(payload)
    if writer == "torch":
        torch.save({"state_dict": payload}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TeacherError, match=name):
        load_teacher(
            tmp_path / name, model="lenet5", image_shape=SHAPE, classes=10, trust_code=True
        )
    assert not payload.marker.exists()
    pickle.loads(content)
    assert payload.marker.exists(), "the payload of this test is a dud"


@pytest.mark.parametrize("name", ["t.pt", "t.pth", "t.pt2", "t.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 half a zip archive"])
def test_a_corrupt_file_is_one_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TeacherError, match=f"{name}: .*(corrupt|expected)"):
        load_teacher(
            tmp_path / name, model="lenet5", image_shape=SHAPE, classes=10, trust_code=True
        )


def test_a_truncated_teacher_is_refused(tmp_path, module):
    path = save_model(
        tmp_path / "t.safetensors", module, model="lenet5-fifth", image_shape=SHAPE, classes=10
    )
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TeacherError, match="it is corrupt or in another format"):
        load_teacher(path)


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"there is no such file; pass a file, or package\.module:object"
    ):
        load_teacher(tmp_path / "none.pt")
    (tmp_path / "net.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"nett\.pt: .*; did you mean 'net\.pt'\?"):
        load_teacher(tmp_path / "nett.pt")
    (tmp_path / "t.h5").touch()
    with pytest.raises(
        ValueError, match=r"expected .safetensors, .*, .onnx, .toml or .json, got '.h5'"
    ):
        load_teacher(tmp_path / "t.h5")


# Names


def test_a_function_is_loaded_by_name(images):
    teacher = load_teacher("teachers_analytic:brightness", image_shape=SHAPE, classes=2)
    assert decide_checked(teacher, images).tolist() == brightness(images.numpy()).tolist()


def test_a_factory_is_loaded_by_name():
    assert isinstance(load_teacher("test_loading_teachers:constant_teacher"), ConstantTeacher)


def failing_factory() -> ConstantTeacher:
    return ConstantTeacher(1 // 0)


def refused_factory() -> ConstantTeacher:
    raise TeacherError("http://localhost:1: no connection")


def test_a_factory_that_fails_is_named():
    words = (
        r"^teacher: expected a factory that can be called without arguments, got "
        r"test_loading_teachers:failing_factory, which fails \(ZeroDivisionError: .* by zero\)$"
    )
    with pytest.raises(ValueError, match=words) as raised:
        load_teacher("test_loading_teachers:failing_factory")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    with pytest.raises(TeacherError, match=r"^http://localhost:1: no connection$"):
        load_teacher("test_loading_teachers:refused_factory")


def test_a_name_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_net_of_this_folder.py").write_text("half = 0.5\n")
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert import_named("own_net_of_this_folder:half", "teacher") == 0.5
    (tmp_path / "math.py").write_text("pi = 3\n")
    assert import_named("math:pi", "teacher") > 3, "installed modules come first"


def test_a_named_function_needs_image_shape_and_classes():
    with pytest.raises(ValueError, match="pass image_shape= and classes="):
        load_teacher("teachers_analytic:brightness")
    shape_missing = r"brightness: does not declare the shape of its images; pass image_shape=$"
    with pytest.raises(ValueError, match=shape_missing):
        load_teacher("teachers_analytic:brightness", classes=2)
    classes_missing = r"brightness: does not declare its number of classes; pass classes=$"
    with pytest.raises(ValueError, match=classes_missing):
        load_teacher("teachers_analytic:brightness", image_shape=SHAPE)


DIGITS = load_digits()
MACHINE = SVC().fit(DIGITS.data / 16, DIGITS.target)


def test_the_method_of_a_fitted_model_gets_rows_of_pixels():
    teacher = load_teacher(f"{__name__}:MACHINE.predict", image_shape=(1, 8, 8), classes=10)
    images = torch.from_numpy(DIGITS.data[:50] / 16).float().reshape(50, 1, 8, 8)
    expected = MACHINE.predict(images.flatten(1).numpy())
    assert decide_checked(teacher, images).tolist() == expected.tolist()
    with pytest.raises(ValueError, match=r"name its method: .*:MACHINE\.predict$"):
        load_teacher(f"{__name__}:MACHINE", image_shape=(1, 8, 8), classes=10)


def test_a_name_of_something_else_is_refused():
    with pytest.raises(
        TeacherError, match="expected a teacher, a torch module, a factory or a fun"
    ):
        load_teacher("test_loading_teachers:SHAPE")


class Writer(nn.Module):
    """Writes a file while it computes scores, which TorchScript can do."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, self.path)
        return images.flatten(1)[:, :3]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_program_is_loaded_only_if_it_is_trusted(tmp_path, module, images):
    torch.jit.script(Writer(str(tmp_path / "written"))).save(tmp_path / "t.pt")
    export(module, tmp_path / "t.pt2", 2, True)
    for name, kind in (("t.pt", "TorchScript"), ("t.pt2", "an exported program")):
        with pytest.raises(ValueError, match=f"{name}: is {kind}, which is code: .*trust_code="):
            decide_checked(load_teacher(tmp_path / name, image_shape=SHAPE, classes=3), images)
    assert not (tmp_path / "written").exists()
    trusted = load_teacher(tmp_path / "t.pt", image_shape=SHAPE, classes=3, trust_code=True)
    decide_checked(trusted, images)
    assert (tmp_path / "written").exists(), "trusted code may write files"


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.module."])
@pytest.mark.parametrize(
    "nested", [(), ("state_dict",), ("net",), ("model_state",), ("a", "model")]
)
def test_weights_are_found_under_prefixes_and_in_nested_dictionaries(
    tmp_path, module, images, prefix, nested
):
    content = {prefix + key: value for key, value in module.state_dict().items()}
    for key in reversed(nested):
        content = {key: content, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "t.pt")
    teacher = load_teacher(tmp_path / "t.pt", model="lenet5-fifth", image_shape=SHAPE, classes=10)
    assert decide_checked(teacher, images).equal(module(images).argmax(1))


def test_keys_that_do_not_fit_are_listed(tmp_path):
    torch.save({"other.weight": torch.zeros(2), "another.bias": torch.zeros(2)}, tmp_path / "t.pt")
    words = r"the file has other\.weight, another\.bias, which the model lacks; correct model="
    with pytest.raises(TeacherError, match=words):
        load_teacher(tmp_path / "t.pt", model="lenet5", image_shape=SHAPE, classes=10)
    torch.save({"epoch": 3, "loss": 0.1}, tmp_path / "t.pt")
    with pytest.raises(TeacherError, match="a state dict of tensors, got keys epoch, loss"):
        load_teacher(tmp_path / "t.pt", model="lenet5", image_shape=SHAPE, classes=10)


def test_a_folder_stands_for_its_student(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"teacher: expected student\.safetensors in "):
        load_teacher(tmp_path)
    network = build_model("linear", (1, 6, 6), 3)
    save_model(
        tmp_path / "student.safetensors", network, model="linear", image_shape=(1, 6, 6), classes=3
    )
    assert (
        load_teacher(tmp_path).fingerprint()
        == load_teacher(tmp_path / "student.safetensors").fingerprint()
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("pack/teach.py:predict", "use pack.teach:predict$"),
        ("./teach.py:predict", "use teach:predict$"),
        ("pack/teach:predict", "use pack.teach:predict$"),
        ("pack/teach.py", "use pack.teach:NAME, with the name of a function or object in it$"),
        ("/far/off/teach.py:predict", "use teach:predict in the folder /far/off, or with this"),
        ("../teach.py:predict", r"use teach:predict in the folder \.\., or with this"),
    ],
)
def test_the_path_of_a_python_file_is_answered_with_its_module(given, words):
    with pytest.raises(ValueError, match=f"teacher: expected package.module:object .*{words}"):
        load_teacher(given, image_shape=(1, 8, 8), classes=10)


def test_a_misspelt_module_or_object_is_answered_with_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "my_answers.py").write_text("def predict(images): ...")
    monkeypatch.chdir(tmp_path)

    for given, near in (("my_answer:predict", "my_answers"), ("my_answers:predct", "predict")):
        with pytest.raises(ValueError, match=f"; did you mean '{near}'"):
            load_teacher(given, image_shape=(1, 8, 8), classes=10)
    with pytest.raises(FileNotFoundError, match="object of a module, such as my_answers:predict"):
        load_teacher("my_answers.predict", image_shape=(1, 8, 8), classes=10)
