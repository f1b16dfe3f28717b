"""A torch module as a teacher."""

import copy
import hashlib

import torch
from torch import Tensor, nn

from db3kd.layout import to_channels_last
from db3kd.teachers.base import TeacherError
from db3kd.validation import check_bounds, check_count, check_image_shape


class ModuleTeacher:
    """The argmax of a module's scores; the scores never leave it.

    The teacher is a snapshot: a copy of the module in eval mode. The module handed in is neither
    changed nor watched, so it can go on training while the teacher, and its fingerprint, stay what
    they were.

    module       images [N, *image_shape] -> scores [N, classes]
    image_shape  shape of one image
    classes      number of classes
    bounds       lowest and highest value of an image
    max_batch    most images of one forward pass; by default 256 on a CPU, 2048 elsewhere
    autocast     a dtype (torch.bfloat16, torch.float16) to run under torch.autocast, or None
    device       where to run; by default where the module's parameters are
    name         what errors call it; by default the module's class
    fingerprint  SHA-256 hex of what defines it; by default of the architecture and the weights
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
        name: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}")
        self.image_shape = check_image_shape(image_shape)
        self.classes = check_count(classes, "classes", least=2)
        self.bounds = check_bounds(bounds)
        self.name = name or type(module).__name__
        self.autocast = autocast
        first = next(module.parameters(), None)
        self.device = torch.device(device or (first.device if first is not None else "cpu"))
        self.max_batch = check_count(max_batch or default_max_batch(self.device), "max_batch")
        with torch.no_grad():  # else the copied weights of TorchScript have a history
            self._module = to_channels_last(copy.deepcopy(module).eval().to(self.device))
        floating = (p.dtype for p in self._module.parameters() if p.is_floating_point())
        self._dtype = next(floating, torch.float32)
        self._fingerprint = fingerprint

    @torch.inference_mode()
    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> int64 [N], same device; TeacherError for unusable scores."""
        if len(images) == 0:
            return torch.empty(0, dtype=torch.int64, device=images.device)
        chunks = [self._decide_chunk(chunk) for chunk in images.split(self.max_batch)]
        return torch.cat(chunks).to(images.device)

    def fingerprint(self) -> str:
        """SHA-256 hex of architecture, weights and autocast dtype; equal for equal copies."""
        if self._fingerprint is None:
            self._fingerprint = module_fingerprint(self._module, self.autocast)
        return self._fingerprint

    def _decide_chunk(self, images: Tensor) -> Tensor:
        # A copy, because a module may work in place and the images are the caller's.
        images = images.to(self.device, self._dtype, copy=True)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            scores = self._module(images)
        expected = (
            f"teacher {self.name}: expected scores [{len(images)}, {self.classes}] from the module"
        )
        if not isinstance(scores, Tensor):
            raise TeacherError(
                f"{expected}, got {type(scores).__name__}; wrap it to return the scores alone"
            )
        if tuple(scores.shape) != (len(images), self.classes):
            raise TeacherError(
                f"{expected}, got {list(scores.shape)}; correct `classes` or the module's last "
                "layer"
            )
        if scores.isnan().any():
            raise TeacherError(
                f"{expected}, got NaN among them; the weights or the precision are unfit"
            )
        return scores.argmax(1)


def default_max_batch(device: torch.device) -> int:
    """Images of one forward pass where nobody says.

    LeNet-5 on one CPU thread takes 0.06 ms an image at 64 and at 256, 0.10 at 512 and 0.11 at
    2048: larger batches leave the caches, smaller ones cost more calls. The accelerator's 2048 is a
    guess that keeps it busy, not a measurement.
    """
    return 256 if device.type == "cpu" else 2048


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
