"""A torch module as a teacher."""

import copy
import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.models.channels_last import to_channels_last
from db3kd.teachers.base import (
    UNANSWERED,
    CompletedDecisions,
    PendingDecisions,
    TeacherError,
    failure,
)
from db3kd.teachers.batching import Batches, Interrupted, batch_on_cuda
from db3kd.teachers.cpu_batch import batch_for_module
from db3kd.teachers.cuda_graphs import Classify, CudaCapture, GraphedClassifier
from db3kd.teachers.pending import ModuleDecisions
from db3kd.teachers.staging import Staging
from db3kd.validation import (
    check_bounds,
    check_class_names,
    check_count,
    check_image_shape,
    check_threshold,
)


class ModuleTeacher:
    """The argmax of a module's scores; the scores never leave it.

    The teacher is a snapshot: a copy of the module in eval mode. The module handed in is neither
    changed nor watched, so it can go on training while the teacher, and its fingerprint, stay what
    they were.

    module       images [N, *image_shape] -> scores [N, classes], or, with `threshold`, one score an
                 image, [N] or [N, 1]
    image_shape  shape of one image
    classes      number of classes
    bounds       lowest and highest value of an image
    max_batch    most images of one forward pass; by default, on a CPU, at most 256, fewer where
                 the module works on large images (see `cpu_batch`), and on CUDA as many as are of
                 use and fit in memory. Both are found when first needed, by passes of zeros. Where
                 memory runs out all the same, it is halved
    autocast     a dtype (torch.bfloat16, torch.float16) to run under torch.autocast, or None
    device       where to run; by default where the module's parameters are
    compile      run it by torch.compile
    cuda_graphs  on CUDA, run it as graphs, one for each power of two of images: for small batches
    name         what errors call it; by default the module's class
    fingerprint  SHA-256 hex of what defines it; by default of the architecture and the weights
    class_names  the name of each class, in the order of their numbers, or None
    threshold    of a module that gives one score an image: class 1 begins at this score, such as
                 0.5 for a sigmoid and 0 for a logit; `classes` must be 2

    max_batch, compile and cuda_graphs change scores by rounding alone, and so no fingerprint.

    Raises TypeError for what is no module, and ValueError for options that do not go together.
    """

    def __init__(
        self,
        module: nn.Module,
        image_shape: tuple[int, ...],
        classes: int,
        bounds: tuple[float, float] = (0.0, 1.0),
        max_batch: int | None = None,
        autocast: torch.dtype | None = None,
        device: torch.device | str | None = None,
        *,
        compile: bool = False,
        cuda_graphs: bool = False,
        name: str | None = None,
        fingerprint: str | None = None,
        class_names: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
        self.image_shape = check_image_shape(image_shape)
        self.classes = check_count(classes, "classes", least=2)
        self.bounds = check_bounds(bounds)
        self.name = name or type(module).__name__
        if class_names is not None:
            class_names = check_class_names(class_names, self.classes, f"teacher {self.name}")
        self.class_names = class_names
        self.threshold = None if threshold is None else check_threshold(threshold, self.classes)
        self.autocast = autocast
        first = next(module.parameters(), None)
        self.device = torch.device(device or (first.device if first is not None else "cpu"))
        _check_options(module, self.device, compile, cuda_graphs)
        self._compile, self._cuda_graphs = compile, cuda_graphs
        self._wanted_batch = None if max_batch is None else check_count(max_batch, "max_batch")
        with torch.no_grad():  # else the copied weights of TorchScript have a history
            self._module = to_channels_last(copy.deepcopy(module).eval().to(self.device))
        floating = (p.dtype for p in self._module.parameters() if p.is_floating_point())
        self._dtype = next(floating, torch.float32)
        colour = len(self.image_shape) == 3 and self.image_shape[0] > 1
        self._layout = torch.channels_last if colour else torch.preserve_format
        self._fingerprint = fingerprint

    @property
    def max_batch(self) -> int:
        """Most images of one forward pass."""
        return self._batches.most

    @property
    def module(self) -> nn.Module:
        """The network that it asks, in eval mode; not to be changed."""
        return self._module

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> int64 [N], same device; TeacherError for unusable scores."""
        return self.decide_async(images).result()

    @torch.inference_mode()
    def decide_async(self, images: Tensor) -> PendingDecisions:
        """As `decide`, any number of images at once; on CUDA the answers are under way."""
        if len(images) == 0:
            return CompletedDecisions(torch.empty(0, dtype=torch.int64, device=images.device))
        complaint = (
            f"{self._expected(len(images))}, got NaN among them; the weights or the precision are "
            "unfit"
        )
        with self._on_device():
            try:
                decisions = self._batches.answer(images, self._answer_batch)
            except Interrupted as stop:
                cause = stop.__cause__
                known = isinstance(cause, TeacherError)
                error = cause if known else failure(self.name, stop.count, cause)
                error.answered = ModuleDecisions(stop.answers, images.device, complaint).result()
                raise error from (None if known else cause)
            return ModuleDecisions(decisions, images.device, complaint)

    def fingerprint(self) -> str:
        """SHA-256 hex of architecture, weights and autocast dtype; equal for equal copies."""
        if self._fingerprint is None:
            self._fingerprint = module_fingerprint(self._module, self.autocast)
        if self.threshold is None:
            return self._fingerprint
        return hashlib.sha256(f"{self._fingerprint} {self.threshold!r}".encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; what is made when first needed, it makes itself."""
        made = ("_batches", "_network", "_classifier", "_staging")
        return {name: value for name, value in vars(self).items() if name not in made}

    @cached_property
    def _batches(self) -> Batches:
        if self._wanted_batch is not None:
            return Batches(self._wanted_batch)
        if self.device.type != "cuda":
            return Batches(self._batch_on_cpu())
        with torch.inference_mode(), self._on_device():
            try:
                return Batches(batch_on_cuda(self._classify_copy, self.image_shape, self.device))
            except TeacherError:
                raise
            except Exception as error:
                raise failure(self.name, 0, error) from error

    def _batch_on_cpu(self) -> int:
        def forward(images: Tensor) -> Any:
            return self._score(self._module, images)

        return batch_for_module(self._module, forward, self.image_shape, self._blank(1))

    @cached_property
    def _network(self) -> nn.Module:
        return torch.compile(self._module) if self._compile else self._module

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

    def _answer_batch(self, images: Tensor) -> Tensor:
        """images of any device -> int64 [n] on the teacher's."""
        if self._staging is not None and images.is_cpu:
            images = self._staging.send(images)
        return self._classifier(images.to(self.device))

    def _blank(self, count: int) -> Tensor:
        images = torch.zeros(count, *self.image_shape, dtype=self._dtype, device=self.device)
        return images.contiguous(memory_format=self._layout)

    def _classify_copy(self, images: Tensor) -> Tensor:
        """A copy, because a module may work in place and the images are the caller's."""
        return self._classify(images.to(self._dtype, copy=True, memory_format=self._layout))

    def _classify(self, images: Tensor) -> Tensor:
        """The class of each image, UNANSWERED where its scores are NaN; the host does not wait."""
        scores = self._score(self._network, images)
        if not isinstance(scores, Tensor):
            raise TeacherError(
                f"{self._expected(len(images))} from the module, got {type(scores).__name__}; wrap "
                "it to return the scores alone"
            )
        one_each = tuple(scores.shape) in ((len(images),), (len(images), 1))
        if self.threshold is not None and one_each:
            scores = scores.reshape(-1)
            return torch.where(scores.isnan(), UNANSWERED, (scores >= self.threshold).long())
        if self.threshold is not None or tuple(scores.shape) != (len(images), self.classes):
            hint = "correct `classes` or the module's last layer"
            if one_each:
                hint = (
                    "give classes=2 and threshold= if it is the one score of a model with two "
                    "classes: 0.5 for a sigmoid, 0 for a logit"
                )
            raise TeacherError(
                f"{self._expected(len(images))} from the module, got {list(scores.shape)}; {hint}"
            )
        best = scores.max(1)  # NaN where any is NaN
        return torch.where(best.values.isnan(), UNANSWERED, best.indices)

    def _score(self, network: nn.Module, images: Tensor) -> Any:
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return network(images)

    def _expected(self, count: int) -> str:
        columns = self.classes if self.threshold is None else 1
        return f"teacher {self.name}: expected scores [{count}, {columns}]"


def _check_options(
    module: nn.Module, device: torch.device, compile: bool, cuda_graphs: bool
) -> None:
    if compile and isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            "compile: expected a Python module, got TorchScript, which is compiled already; leave "
            "it out"
        )
    if cuda_graphs and device.type != "cuda":
        raise ValueError(
            f"cuda_graphs: expected a CUDA device, got {device}; leave it out, or give a device"
        )


def module_fingerprint(module: nn.Module, autocast: torch.dtype | None = None) -> str:
    """SHA-256 hex of a module's printed architecture, its state and the precision it runs in."""
    kind = type(module)
    digest = hashlib.sha256(
        f"{kind.__module__}.{kind.__qualname__}\n{module}\n{autocast}\n".encode()
    )
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
