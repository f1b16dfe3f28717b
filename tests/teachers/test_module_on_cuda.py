"""How a torch module runs: batches, graphs, staging.

Doubles replace the GPU, except in the last section, which is skipped without one.
"""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from db3kd.models.networks import build_model
from db3kd.teachers import (
    ModuleTeacher,
    TeacherError,
    decide_async_checked,
    decide_checked,
    load_teacher,
)
from db3kd.teachers.torch_modules.batching import BatchError, Batches, bucket_of, useful_batch
from db3kd.teachers.torch_modules.cuda_graphs import Graph, GraphedClassifier
from db3kd.teachers.torch_modules.staging import Staging

SHAPE = (1, 8, 8)


class Hungry(nn.Module):
    """Runs out of memory above `most` images, and records the size of every batch."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []

    def __deepcopy__(self, memo: dict) -> "Hungry":
        return self

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return images.flatten(1)


# Out of memory


def test_out_of_memory_halves_the_batch_and_repeats_no_image(images):
    hungry = Hungry(3)
    teacher = ModuleTeacher(hungry, SHAPE, 64, max_batch=16)
    assert decide_checked(teacher, images).equal(images.flatten(1).argmax(1))
    assert hungry.seen == [16, 8, 4, *[2] * 10] and teacher.max_batch == 2
    assert sum(size for size in hungry.seen if size <= 3) == 20


def test_a_smaller_batch_is_kept_for_later_calls(images):
    hungry = Hungry(8)
    teacher = ModuleTeacher(hungry, SHAPE, 64, max_batch=16)
    teacher.decide(images)
    hungry.seen.clear()
    teacher.decide(images)
    assert hungry.seen == [8, 8, 4]


def test_a_last_batch_that_is_small_does_not_shrink_the_others():
    batches, sizes = Batches(8), []

    def classify(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images

    assert batches.classify(torch.arange(19), classify).tolist() == list(range(19))
    assert sizes == [8, 8, 3] and batches.max_batch == 8


def test_too_little_memory_for_one_image_is_a_clear_error(images):
    with pytest.raises(TeacherError, match="teacher Hungry raised OutOfMemoryError on 1 image"):
        decide_checked(ModuleTeacher(Hungry(0), SHAPE, 64), images)


def test_answers_before_a_failure_are_kept(images):
    class Failing(Hungry):
        def forward(self, images: Tensor) -> Tensor:
            if len(self.seen) == 2:
                raise RuntimeError("a cable came loose")
            return super().forward(images)

    teacher = ModuleTeacher(Failing(99), SHAPE, 64, max_batch=6)
    with pytest.raises(TeacherError, match="raised RuntimeError on 6 images: a cable") as caught:
        decide_checked(teacher, images)
    assert caught.value.answered.equal(images[:12].flatten(1).argmax(1))


def test_an_error_in_a_batch_is_the_cause():
    with pytest.raises(BatchError) as caught:
        Batches(4).classify(torch.arange(3), lambda _: 1 / 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError) and caught.value.count == 3


# Invalid decisions


def test_decisions_before_the_first_nan_are_kept(images):
    images = images.clone()
    images[13] = torch.nan
    teacher = ModuleTeacher(nn.Flatten(), SHAPE, 64, max_batch=8)
    with pytest.raises(TeacherError, match=r"expected scores \[20, 64\], got NaN") as caught:
        decide_checked(teacher, images)
    assert caught.value.answered.equal(images[:13].flatten(1).argmax(1))


def test_nan_is_found_without_a_sync_per_batch(images, module):
    teacher = ModuleTeacher(module, SHAPE, 10, max_batch=2)
    with torch.profiler.profile() as profile:
        decide_async_checked(teacher, images)
    assert not any("local_scalar" in event.name for event in profile.events())


def test_no_forward_pass_copies_mean_and_std_to_the_device(images, module):
    teacher = ModuleTeacher(module, SHAPE, 10, max_batch=2, mean=0.3, std=[0.5])
    decisions = decide_async_checked(teacher, images).result()
    with torch.profiler.profile() as profile:
        decide_async_checked(teacher, images)
    assert not any("lift_fresh" in event.name for event in profile.events())
    assert decisions.equal(module((images - 0.3) / 0.5).argmax(1))


def test_async_decisions_are_the_decisions(images, module):
    teacher = ModuleTeacher(module, SHAPE, 10, max_batch=7)
    answers = decide_async_checked(teacher, images)
    assert answers.done() and answers.result().equal(teacher.decide(images))
    assert decide_async_checked(teacher, images[:0]).result().shape == (0,)


# The size of a batch


@pytest.mark.parametrize(
    ("count", "bucket"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (2048, 2048)]
)
def test_a_bucket_is_the_next_power_of_two(count, bucket):
    assert bucket_of(count) == bucket


def test_a_batch_grows_until_it_is_hardly_faster():
    assert useful_batch(lambda count: 1.0 + count / 100_000) == 2**16
    assert useful_batch(lambda count: max(1.0, count / 512)) == 512
    assert useful_batch(lambda count: float(count)) == 64


def test_a_batch_grows_until_memory_runs_out():
    def seconds(count: int) -> float:
        if count > 300:
            raise torch.OutOfMemoryError
        return 1.0

    assert useful_batch(seconds) == 256
    assert useful_batch(seconds, smallest=512) == 512, "Batches halves it at the first call"


def test_the_batch_of_a_cpu_is_256_unless_it_is_given(module):
    assert ModuleTeacher(module, SHAPE, 10).max_batch == 256
    assert ModuleTeacher(module, SHAPE, 10, max_batch=5).max_batch == 5
    with pytest.raises(ValueError, match="max_batch: expected an integer of at least 1, got 0"):
        ModuleTeacher(module, SHAPE, 10, max_batch=0)


# Graphs


class Idle:
    """Records when a graph is waited for and released."""

    def __init__(self, log: list) -> None:
        self.log = log

    def wait(self) -> None:
        self.log.append("wait")

    def record(self) -> None:
        self.log.append("record")


def replaying(log: list, classify, images: Tensor) -> Graph:
    """A capture without a GPU: a replay runs the module again on the same memory."""
    log.append(("capture", len(images)))
    decisions = classify(images)

    def replay() -> None:
        log.append(("replay", len(images)))
        decisions.copy_(classify(images))

    return Graph(images, decisions, replay)


def graphed(log: list, classify=lambda images: images.flatten(1).argmax(1)) -> GraphedClassifier:
    return GraphedClassifier(
        classify, lambda n: torch.zeros(n, *SHAPE), partial(replaying, log), Idle(log)
    )


def test_a_graph_is_captured_once_for_each_power_of_two(images):
    log: list = []
    classify = graphed(log)
    for count in (5, 8, 20, 6, 1):
        assert classify(images[:count]).equal(images[:count].flatten(1).argmax(1))
    captured = [entry[1] for entry in log if entry[0] == "capture"]
    replayed = [entry[1] for entry in log if entry[0] == "replay"]
    assert captured == [8, 32, 1] and replayed == [8, 8, 32, 8, 1]


def test_a_graph_waits_until_another_stream_has_read_it(images):
    log: list = []
    classify = graphed(log)
    classify(images[:4])
    classify(images[:4])
    assert log == [("capture", 4), *["wait", ("replay", 4), "record"] * 2]


def test_rows_of_an_earlier_batch_are_ignored(images):
    classify = graphed([])
    spoilt = torch.full((8, *SHAPE), torch.nan)
    classify(spoilt)
    first = classify(images[:5])
    assert len(first) == 5 and first.equal(images[:5].flatten(1).argmax(1))
    classify(images[10:15])
    assert first.equal(images[:5].flatten(1).argmax(1)), "decisions are copied out of the graph"


def test_a_capture_that_fails_is_not_kept(images):
    def capture(classify, empty):
        raise TeacherError("cuda_graphs: it cannot be captured")

    classify = GraphedClassifier(nn.Flatten(), lambda n: torch.zeros(n, *SHAPE), capture, Idle([]))
    for _ in range(2):
        with pytest.raises(TeacherError, match="cannot be captured"):
            classify(images)


def test_graphs_on_a_cpu_are_refused(module):
    with pytest.raises(ValueError, match="cuda_graphs: expected a CUDA device, got cpu"):
        ModuleTeacher(module, SHAPE, 10, cuda_graphs=True)


# Staging


class Read:
    """An event that records its calls."""

    made = 0

    def __init__(self, log: list) -> None:
        self.log, self.number = log, Read.made % 2
        Read.made += 1

    def synchronize(self) -> None:
        self.log.append(("wait", self.number))

    def record(self) -> None:
        self.log.append(("record", self.number))


def staging(log: list) -> tuple[Staging, list[tuple[int, ...]]]:
    made: list[tuple[int, ...]] = []

    def allocate(shape, dtype):
        made.append(tuple(shape))
        return torch.empty(shape, dtype=dtype)

    return Staging(torch.device("cpu"), allocate, partial(Read, log)), made


def test_images_use_two_buffers_in_turn_and_wait_for_each_before_filling_it(images):
    log: list = []
    stage, made = staging(log)
    for part in images.split(6):
        assert stage.send(part).equal(part)
    assert [turn for kind, turn in log if kind == "wait"] == [1, 0, 1, 0]
    assert log[:2] == [("wait", 1), ("record", 1)]
    assert made == [(6, *SHAPE)] * 2


def test_a_buffer_that_does_not_fit_is_replaced(images):
    stage, made = staging([])
    for batch in (images[:2], images[:2], images[:5], images[:1].double()):
        sent = stage.send(batch)
        assert sent.equal(batch) and sent.dtype == batch.dtype
    assert made == [(2, *SHAPE), (2, *SHAPE), (5, *SHAPE), (1, *SHAPE)]


# Layout, compiling, copies


class Layouts(nn.Module):
    """Returns class 1 if the images are in the channels-last format."""

    def forward(self, images: Tensor) -> Tensor:
        last = images.is_contiguous(memory_format=torch.channels_last)
        return torch.eye(2)[torch.full((len(images),), int(last))]


def test_colour_images_are_in_the_channels_last_format():
    teacher = ModuleTeacher(Layouts(), (3, 8, 8), 2)
    assert teacher.decide(torch.rand(4, 3, 8, 8)).tolist() == [1] * 4


def test_a_compiled_module_decides_alike(images, module, monkeypatch):
    # Traced as usual, but without the C++ compiler, which takes half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = ModuleTeacher(module, SHAPE, 10)
    compiled = ModuleTeacher(module, SHAPE, 10, compile=True, max_batch=8)
    assert compiled.decide(images).equal(plain.decide(images))
    assert compiled.fingerprint() == plain.fingerprint()


def test_torchscript_is_not_compiled_again(module):
    scripted = torch.jit.ScriptModule()
    with pytest.raises(ValueError, match="compile: expected a Python module, got TorchScript"):
        ModuleTeacher(scripted, SHAPE, 10, compile=True)


def test_a_teacher_that_has_answered_can_be_copied_and_sent(images, module):
    teacher = ModuleTeacher(module, SHAPE, 10)
    decisions = teacher.decide(images)
    for again in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        assert again.decide(images).equal(decisions)


@pytest.mark.parametrize(
    "option", [{"compile": True}, {"cuda_graphs": True}, {"autocast": torch.bfloat16}]
)
@pytest.mark.parametrize("source", ["teacher.onnx", "teachers_analytic:brightness"])
def test_options_of_a_module_are_refused_for_another_teacher(source, option):
    name = next(iter(option))
    with pytest.raises(ValueError, match=f"{name}: applies to torch modules only"):
        load_teacher(source, image_shape=SHAPE, classes=2, **option)


# On a GPU

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model("lenet5-fifth", (1, 28, 28), 10).double()


@pytest.fixture
def digits() -> Tensor:
    return torch.rand(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@cuda
@pytest.mark.parametrize("options", [{}, {"cuda_graphs": True}, {"compile": True}])
@pytest.mark.parametrize("normalization", [{}, {"mean": 0.3, "std": 0.5}])
@pytest.mark.parametrize("caller", ["cpu", "cuda"])
def test_a_gpu_decides_as_a_cpu_does(network, digits, options, normalization, caller):
    options = {**options, **normalization}
    on_cpu = ModuleTeacher(network, (1, 28, 28), 10, **normalization).decide(digits)
    teacher = ModuleTeacher(network, (1, 28, 28), 10, max_batch=100, device="cuda", **options)
    decisions = decide_checked(teacher, digits.to(caller))
    assert decisions.device.type == caller and decisions.cpu().equal(on_cpu)


@cuda
def test_a_gpu_finds_its_batch(network, digits):
    teacher = ModuleTeacher(network, (1, 28, 28), 10, device="cuda")
    assert teacher.max_batch == bucket_of(teacher.max_batch) >= 64
    assert len(teacher.decide(digits)) == 300


@cuda
@pytest.mark.parametrize("graphs", [False, True])
def test_streams_do_not_mix_their_decisions(network, digits, graphs):
    teacher = ModuleTeacher(
        network, (1, 28, 28), 10, max_batch=64, device="cuda", cuda_graphs=graphs
    )
    on_device = digits.cuda()
    expected = teacher.decide(on_device)
    torch.cuda.synchronize()
    parts = list(on_device.split(50)) * 4
    streams = [torch.cuda.Stream() for _ in range(2)]
    pending = []
    for number, part in enumerate(parts):
        with torch.cuda.stream(streams[number % 2]):
            pending.append(teacher.decide_async(part))
    decisions = torch.cat([answers.result() for answers in pending])
    torch.cuda.synchronize()
    assert decisions.equal(expected.repeat(4))


@cuda
def test_a_pass_that_waits_for_the_gpu_is_not_captured(digits):
    class Waiting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, : 10 + int(images.sum() < 0)]

    teacher = ModuleTeacher(Waiting(), (1, 28, 28), 10, device="cuda", cuda_graphs=True)
    with pytest.raises(TeacherError, match="cuda_graphs: expected a module whose forward pass"):
        decide_checked(teacher, digits)


@cuda
def test_nan_on_a_gpu_is_an_error(network, digits):
    nn.init.constant_(network.classifier[-1].bias, float("nan"))
    teacher = ModuleTeacher(network, (1, 28, 28), 10, device="cuda")
    for caller in ("cpu", "cuda"):
        with pytest.raises(TeacherError, match="got NaN among them"):
            decide_checked(teacher, digits.to(caller))
