"""A teacher made of a torch module."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property, partial
from types import NoneType
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from db3kd.arguments.images import (
    check_bounds,
    check_class_names,
    check_device,
    check_has_channels,
    check_images,
    check_threshold,
)
from db3kd.arguments.plain import check_count, check_type
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.channels_last import to_channels_last
from db3kd.models.copying import copy_network
from db3kd.models.state import weight_dtype
from db3kd.tables import Features
from db3kd.teachers.base import (
    UNANSWERED,
    CompletedDecisions,
    PendingDecisions,
    TeacherError,
    failure,
    teacher_repr,
)
from db3kd.teachers.cpu_batch import batch_for_module
from db3kd.teachers.fingerprints import module_fingerprint
from db3kd.teachers.given_images import as_images
from db3kd.teachers.preprocessing import PreprocessedModule, Preprocessing
from db3kd.teachers.torch_modules.batching import BatchError, Batches, batch_on_cuda
from db3kd.teachers.torch_modules.cuda_graphs import Classify, CudaCapture, GraphedClassifier
from db3kd.teachers.torch_modules.pending import ModuleDecisions
from db3kd.teachers.torch_modules.staging import Staging
from db3kd.wording import input_noun

Precision: TypeAlias = Literal["bf16", "fp16"] | torch.dtype
"""How `autocast` names a precision."""

_AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ModuleTeacher:
    """A teacher that returns the argmax of a torch module's scores.

    The teacher copies the module, so later training does not change its decisions.
    `max_batch`, `compile` and `cuda_graphs` change scores only by rounding, so the fingerprint does
    not depend on them.

    Example:
        >>> network = ModuleTeacher(resnet, (3, 32, 32), 10, mean=(0.49, 0.48, 0.45), std=0.25)
        >>> teacher = ModuleTeacher(build_model("lenet5", (1, 28, 28), 10), (1, 28, 28), classes=10)
        >>> teacher.decide(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4])

    Args:
        module: Takes images [N, *image_shape] and returns scores [N, classes] or, with `threshold`,
            one score per image, [N] or [N, 1].
        image_shape: Shape of one image, for example `(1, 28, 28)`.
        classes: Number of classes.
        bounds: Lowest and highest pixel value.
        max_batch: Maximum number of images per forward pass. By default it is measured on CUDA, and
            on a CPU it follows from the network's sizes (see `cpu_batch`), at most 256. It is
            halved if memory runs out.
        autocast: "bf16" or "fp16", or `torch.bfloat16` or `torch.float16`, to run under
            torch.autocast.
        device: The device to run on; by default the device of the module's parameters.
        compile: Run the module through torch.compile.
        cuda_graphs: On CUDA, replay forward passes as CUDA graphs, one for each power of two of
            images. This is faster for small batches.
        name: The name in errors; by default the module's class.
        fingerprint: Text that identifies the module; change it whenever the module changes. By
            default a digest of the module.
        class_names: Class names in the order of the class numbers.
        threshold: For a module that returns one score per image: class 1 begins at this score, for
            example 0.5 for a sigmoid or 0 for a logit. `classes` must be 2.
        features: The features of a table, for a module that takes its encoded rows.
        mean: Subtracted from the images before the module; one number, or one per channel. Pass
            what `torchvision.transforms.Normalize` got in training.
        std: Divisor after that; one number, or one per channel.

    Raises:
        TypeError: If `module` is not a torch.nn.Module.
        ValueError: If the arguments are invalid or contradict each other.
    """

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, ...],
        classes: int,
        bounds: tuple[float, float] = (0.0, 1.0),
        max_batch: int | None = None,
        autocast: Precision | None = None,
        device: torch.device | str | None = None,
        *,
        compile: bool = False,
        cuda_graphs: bool = False,
        name: str | None = None,
        fingerprint: str | None = None,
        class_names: Sequence[str] | None = None,
        threshold: float | None = None,
        features: Features | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ArgumentTypeError(
                "module", f"expected a torch.nn.Module, got {type(module).__name__}"
            )
        self.image_shape = check_has_channels(image_shape)
        self.classes = check_count(classes, "classes", least=2)
        self.bounds = check_bounds(bounds)
        self.name = name or type(module).__name__
        if class_names is not None:
            class_names = check_class_names(class_names, self.classes, f"teacher {self.name}")
        self.class_names = class_names
        self.threshold = None if threshold is None else check_threshold(threshold, self.classes)
        check_type(features, (Features, NoneType), "features", "db3kd.Features or None")
        self.features = features
        self.autocast = as_autocast(autocast)
        first = next(module.parameters(), None)
        where = "cpu" if first is None else first.device
        self.device = check_device(where if device is None else device)
        _check_options(module, self.device, compile, cuda_graphs)
        self._compile, self._cuda_graphs = compile, cuda_graphs
        self._normalization = Preprocessing(mean=_numbers(mean), std=_numbers(std))
        if self._normalization != Preprocessing():
            self._normalization.input_shape(self.image_shape)  # raises if the channels do not fit
            module = PreprocessedModule(module, self._normalization)
        self._given_max_batch = None if max_batch is None else check_count(max_batch, "max_batch")
        self._module = to_channels_last(copy_network(module, "module").eval().to(self.device))
        self._dtype = weight_dtype(self._module)
        colour = len(self.image_shape) == 3 and self.image_shape[0] > 1
        self._layout = torch.channels_last if colour else torch.preserve_format
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        steps = self._normalization
        shown = "".join(
            f", {name}={values[0] if len(values) == 1 else values}"
            for name, values, default in (("mean", steps.mean, (0.0,)), ("std", steps.std, (1.0,)))
            if values != default
        )
        return f"{teacher_repr(self)[:-1]}{shown})"

    @property
    def max_batch(self) -> int:
        """Maximum number of images per forward pass."""
        return self._batches.max_batch

    @property
    def module(self) -> nn.Module:
        """The teacher's copy of the module, in eval mode. Do not modify it."""
        return self._module

    def decide(self, images: Tensor) -> Tensor:
        """Returns the class of each image; see `Teacher.decide`.

        Raises:
            TeacherError: If the module raises or returns anything but scores.
            ValueError: If an image has another shape, or values outside of the bounds.
        """
        images = as_images(images, self)
        # Searches call `decide_async`, which must not wait for a GPU. This method waits anyway.
        check_images(images.float(), self.image_shape, self.bounds)
        return self.decide_async(images).result()

    def decide_async(self, images: Tensor) -> PendingDecisions:
        """Starts to decide any number of images; see `AsyncTeacher.decide_async`."""
        images = as_images(images, self)
        if len(images) == 0:
            return CompletedDecisions(torch.empty(0, dtype=torch.int64, device=images.device))
        nan_message = (
            f"{self._expected(len(images))}, got NaN among them; check the weights and precision"
        )
        with self._on_device():
            try:
                with torch.inference_mode():
                    decisions = self._batches.classify(images, self._decide_batch)
            except BatchError as stop:
                error = cause = stop.cause
                if not isinstance(error, TeacherError):
                    error = failure(self.name, stop.count, cause, input_noun(self.image_shape))
                decided = ModuleDecisions(stop.decisions.clone(), images.device, nan_message)
                error.answered = decided.result()
                raise error from (None if error is cause else cause)
            # A clone, because a tensor made in inference mode cannot be used in training.
            return ModuleDecisions(decisions.clone(), images.device, nan_message)

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of module, precision, mean, std and threshold.

        Of the module these are its architecture, weights, other state, attributes and code; see
        `module_fingerprint`.

        Raises:
            ValueError: If a lazy layer of the module was never called.
        """
        if self._fingerprint is None:
            self._fingerprint = module_fingerprint(self._module, self.autocast)
        known = self._fingerprint
        if self._normalization != Preprocessing():
            known = hashlib.sha256(f"{known} {self._normalization}".encode()).hexdigest()
        if self.threshold is not None:
            known = hashlib.sha256(f"{known} {self.threshold!r}".encode()).hexdigest()
        return known

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields what `db3kd info` shows besides what every teacher has: its preprocessing."""
        if isinstance(self._module, PreprocessedModule):
            yield from self._module.preprocessing.details()

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the cached properties, which a copy computes itself."""
        cached = ("_batches", "_network", "_classifier", "_staging")
        return {name: value for name, value in vars(self).items() if name not in cached}

    @cached_property
    def _batches(self) -> Batches:
        if self._given_max_batch is not None:
            return Batches(self._given_max_batch)
        with suppress(ValueError):  # a lazy layer has none
            self.fingerprint()  # before the module is called, because it may count its calls
        if self.device.type != "cuda":
            forward = partial(self._score, self._module)
            size = batch_for_module(self._module, forward, self.image_shape, self._blank(1))
            return Batches(size)
        with torch.inference_mode(), self._on_device():
            try:
                return Batches(batch_on_cuda(self._classify_copy, self.image_shape, self.device))
            except TeacherError:
                raise
            except Exception as error:
                raise failure(self.name, 0, error) from error

    @cached_property
    def _network(self) -> nn.Module:
        if not self._compile:
            return self._module
        return cast(nn.Module, torch.compile(self._module))

    @cached_property
    def _classifier(self) -> Classify:
        if not self._cuda_graphs:
            return self._classify_copy
        return GraphedClassifier(
            self._classify, self._blank, CudaCapture(self.device), torch.cuda.Event()
        )

    @cached_property
    def _staging(self) -> Staging | None:
        return Staging(self.device) if self.device.type == "cuda" else None

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def _decide_batch(self, images: Tensor) -> Tensor:
        """Takes images on any device and returns [n] int64 on the teacher's device."""
        if self._staging is not None and images.is_cpu:
            images = self._staging.send(images)
        return self._classifier(images.to(self.device))

    def _blank(self, count: int) -> Tensor:
        images = torch.zeros(count, *self.image_shape, dtype=self._dtype, device=self.device)
        return images.contiguous(memory_format=self._layout)

    def _classify_copy(self, images: Tensor) -> Tensor:
        """Classifies a copy, because the module may modify its input in place."""
        return self._classify(images.to(self._dtype, copy=True, memory_format=self._layout))

    def _classify(self, images: Tensor) -> Tensor:
        """Returns the class of each image, UNANSWERED if its scores hold NaN, without a sync."""
        scores = self._score(self._network, images)
        if not isinstance(scores, Tensor):
            raise TeacherError(
                f"{self._expected(len(images))} from the module, got {type(scores).__name__}; wrap "
                "it so that it returns only the scores"
            )
        single = tuple(scores.shape) in ((len(images),), (len(images), 1))
        if self.threshold is not None and single:
            scores = scores.reshape(-1)
            return torch.where(scores.isnan(), UNANSWERED, (scores >= self.threshold).long())
        if self.threshold is not None or tuple(scores.shape) != (len(images), self.classes):
            hint = "correct classes= or the module's last layer"
            if single:
                hint = (
                    "if it is the one score of a model with two classes, pass classes=2 and "
                    "threshold=: 0.5 for a sigmoid, 0 for a logit"
                )
            raise TeacherError(
                f"{self._expected(len(images))} from the module, got {list(scores.shape)}; {hint}"
            )
        best = scores.max(1)  # NaN if any score of the image is NaN
        return torch.where(best.values.isnan(), UNANSWERED, best.indices)

    def _score(self, network: nn.Module, images: Tensor) -> Any:
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return network(images)

    def _expected(self, count: int) -> str:
        columns = self.classes if self.threshold is None else 1
        return f"teacher {self.name}: expected scores [{count}, {columns}]"


def _numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def as_autocast(autocast: Precision | None) -> torch.dtype | None:
    """Returns the dtype for torch.autocast, which may be given as text.

    Args:
        autocast: "bf16", "fp16", `torch.bfloat16` or `torch.float16`; None for no autocast.

    Raises:
        TypeError: If it is neither text nor a dtype.
        ValueError: If it is another precision.
    """
    expected = "'bf16', 'fp16' or None"
    check_type(autocast, (str, torch.dtype, NoneType), "autocast", expected)
    found = _AUTOCAST.get(autocast, autocast) if isinstance(autocast, str) else autocast
    if found not in (None, *_AUTOCAST.values()):
        raise ArgumentError("autocast", f"expected {expected}, got {autocast!r}")
    return found


def _check_options(
    module: nn.Module, device: torch.device, compile: bool, cuda_graphs: bool
) -> None:
    if compile and isinstance(module, torch.jit.ScriptModule):
        raise ArgumentError(
            "compile",
            "expected a Python module, got TorchScript, which is already compiled; leave "
            "compile out",
        )
    if cuda_graphs and device.type != "cuda":
        raise ArgumentError(
            "cuda_graphs", f"expected a CUDA device, got {device}; pass device= or omit cuda_graphs"
        )
