"""Descriptions of torch files and functions: architecture and preprocessing."""

import numpy as np
import pytest
import torch
from torch import nn

from db3kd.labelling.workers.ray_cluster import check_socket_path
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.teachers import ModuleTeacher, decide_checked, load_teacher
from db3kd.teachers.decision_streams import open_stream
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.signature import ModelOverrides, TensorSpec, resolve

SHAPE = (3, 32, 32)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet18", SHAPE, 5).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def describe(folder, text: str):
    path = folder / "teacher.toml"
    path.write_text(text)
    return path


def test_weights_have_mean_and_deviation_in_front_of_them(tmp_path, module, images):
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    path = describe(
        tmp_path,
        'file = "weights.pth"\narchitecture = "resnet18"\nimage_shape = [3, 32, 32]\nclasses = 5\n'
        f"[preprocessing]\nmean = {list(mean)}\nstd = {list(std)}\n",
    )
    teacher = load_teacher(path)
    assert isinstance(teacher, ModuleTeacher) and teacher.image_shape == SHAPE
    normal = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert decide_checked(teacher, images).equal(module(normal).argmax(1))
    assert (
        teacher.fingerprint()
        != load_teacher(
            tmp_path / "weights.pth", model="resnet18", image_shape=SHAPE, classes=5
        ).fingerprint()
    )


def test_the_channels_may_be_reversed_and_scaled(tmp_path, module, images):
    described = {"model": "resnet18", "image_shape": SHAPE, "classes": 5, "bounds": (0, 255)}
    save_model(tmp_path / "t.safetensors", module, **described)
    plain = 'file = "t.safetensors"\n[preprocessing]\nchannel_order = "BGR"\n'
    with pytest.raises(ValueError, match=r"ends in \[0, 255\], .*set scale = \[0, 255\]"):
        load_teacher(describe(tmp_path, plain))
    text = 'file = "t.safetensors"\n[preprocessing]\nchannel_order = "BGR"\nscale = [0, 255]\n'
    teacher = load_teacher(describe(tmp_path, text))
    assert decide_checked(teacher, images).equal(module(images.flip(1) * 255).argmax(1))


def test_the_steps_are_the_same_for_files_of_every_kind(images):
    steps = Preprocessing(
        resize=(16, 16), scale=(0, 255), mean=(1.0, 2.0, 3.0), std=(2.0, 3.0, 4.0), layout="NHWC"
    )
    assert np.array_equal(steps(images), steps.steps(images).numpy())
    with pytest.raises(ValueError, match=r"channel_order: BGR needs images \(3, height, width\)"):
        Preprocessing(channel_order="BGR").input_shape((1, 8, 8))
    with pytest.raises(ValueError, match="channel_order: expected one of RGB, BGR, got 'GBR'"):
        Preprocessing(channel_order="GBR")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_description_cannot_choose_which_code_runs(tmp_path, module):
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    path = describe(tmp_path, 'file = "weights.pth"\narchitecture = "os:system"\nclasses = 5\n')
    with pytest.raises(ValueError, match="a file cannot choose which code runs"):
        load_teacher(path, image_shape=SHAPE)
    torch.jit.trace(module, torch.rand(1, *SHAPE)).save(tmp_path / "t.pt")
    text = 'file = "t.pt"\nimage_shape = [3, 32, 32]\nclasses = 5\n'
    with pytest.raises(ValueError, match="which is code"):
        load_teacher(describe(tmp_path, text))
    assert load_teacher(describe(tmp_path, text), trust_code=True).classes == 5


def test_a_described_program_keeps_its_largest_batch(tmp_path, module, images):
    sizes = ({0: torch.export.Dim("n", min=2, max=4)},)
    program = torch.export.export(module, (images[:3],), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "t.pt2")
    path = describe(tmp_path, 'file = "t.pt2"\n[preprocessing]\nmean = 0.5\n')
    teacher = load_teacher(path, trust_code=True)
    assert (teacher.max_batch, teacher.classes) == (4, 5)
    assert decide_checked(teacher, images).equal(module(images - 0.5).argmax(1))


def test_keys_of_onnx_files_are_refused_for_a_torch_file(tmp_path):
    text = 'file = "weights.pth"\nclass_offset = 1\n'
    with pytest.raises(ValueError, match="class_offset: cannot be used with a torch file"):
        load_teacher(describe(tmp_path, text))


def first_pixel(images: np.ndarray) -> np.ndarray:
    return (images.reshape(len(images), -1)[:, 0] > 100).astype(np.int64)


def test_a_described_function_needs_trust(tmp_path, images):
    text = (
        'function = "test_described_modules:first_pixel"\nimage_shape = [3, 32, 32]\nclasses = 2\n'
        "[preprocessing]\nscale = [0, 255]\n"
    )
    with pytest.raises(ValueError, match=r"cannot choose which code runs: .*trust_code="):
        load_teacher(describe(tmp_path, text))
    teacher = load_teacher(describe(tmp_path, text), trust_code=True)
    expected = (images[:, 0, 0, 0] * 255 > 100).long()
    assert decide_checked(teacher, images).equal(expected)


def one_by_one(images: np.ndarray):
    yield from first_pixel(images).tolist()


def names_one_by_one(images: np.ndarray):
    for number in first_pixel(images).tolist():
        yield ("dark", "bright")[number]


class OneByOne:
    def __call__(self, images: np.ndarray):
        yield from one_by_one(images)


callable_one_by_one = OneByOne()


@pytest.mark.parametrize(
    ("function", "declared"),
    [
        ("one_by_one", "classes = 2"),
        ("names_one_by_one", 'labels = "names.txt"'),
        ("callable_one_by_one", "classes = 2"),
    ],
)
def test_a_described_generator_is_asked_one_by_one(tmp_path, images, function, declared):
    (tmp_path / "names.txt").write_text("dark\nbright\n")
    text = (
        f'function = "test_described_modules:{function}"\nimage_shape = [3, 32, 32]\n{declared}\n'
        "[preprocessing]\nscale = [0, 255]\n"
    )
    teacher = load_teacher(describe(tmp_path, text), trust_code=True)
    expected = (images[:, 0, 0, 0] * 255 > 100).long()
    assert decide_checked(teacher, images).equal(expected)
    stream = open_stream(teacher, images, lambda count: None)
    assert stream.next_part().equal(expected[:1])  # each class is recorded before the next is paid
    assert stream.stop().equal(expected[:1])


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))


def test_a_described_function_may_make_a_module_that_is_normalized(tmp_path, images):
    text = (
        'function = "test_described_modules:make_net"\nimage_shape = [3, 32, 32]\nclasses = 5\n'
        "[preprocessing]\nmean = [0.5, 0.4, 0.3]\nstd = 0.2\n"
    )
    teacher = load_teacher(describe(tmp_path, text), trust_code=True)
    mean = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    truth = make_net()((images - mean) / 0.2).argmax(1)
    assert isinstance(teacher, ModuleTeacher) and decide_checked(teacher, images).equal(truth)
    assert dict(teacher.details())["std"] == "0.2"

    given = ModuleTeacher(make_net(), SHAPE, 5, mean=(0.5, 0.4, 0.3), std=0.2)
    assert given.decide(images).equal(truth) and dict(given.details())["mean"] == "0.5, 0.4, 0.3"
    plain = ModuleTeacher(make_net(), SHAPE, 5)
    assert given.fingerprint() != plain.fingerprint() and not list(plain.details())
    other = ModuleTeacher(make_net(), SHAPE, 5, mean=(0.5, 0.4, 0.3), std=0.3)
    assert len({each.fingerprint() for each in (given, plain, other)}) == 3
    with pytest.raises(ValueError, match=r"mean: expected 1 or 3 numbers for images"):
        ModuleTeacher(make_net(), SHAPE, 5, mean=(0.5, 0.4))


def test_a_described_object_that_is_no_function_is_refused(tmp_path):
    text = 'function = "test_described_modules:SHAPE"\nimage_shape = [3, 32, 32]\nclasses = 5\n'
    with pytest.raises(ValueError, match=r"t\w+\.toml: function: expected .*, got tuple"):
        load_teacher(describe(tmp_path, text), trust_code=True)


def not_a_factory(width: int) -> nn.Module:
    return nn.Linear(width, 2)


def test_a_factory_states_how_it_is_called():
    with pytest.raises(
        TypeError, match=r"without arguments or of \(image_shape, classes\), got one of \(width"
    ):
        build_model("test_described_modules:not_a_factory", SHAPE, 5)


def test_a_declared_shape_with_its_channels_last_suggests_the_layout():
    inputs = [TensorSpec("images", "float32", (-1, 32, 32, 3))]
    outputs = [TensorSpec("scores", "float32", (-1, 5))]
    for said in (ModelOverrides(), ModelOverrides(image_shape=SHAPE)):
        with pytest.raises(ValueError, match=r'layout = "NHWC" in \[preprocessing\]'):
            resolve("it", inputs, outputs, said, Preprocessing())
    contract = resolve("it", inputs, outputs, ModelOverrides(), Preprocessing(layout="NHWC"))
    assert contract.image_shape == SHAPE


def test_a_path_too_long_for_a_socket_names_the_variable(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 12)
    with pytest.raises(ValueError, match="set RAY_TMPDIR to a short path"):
        check_socket_path()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_socket_path()
