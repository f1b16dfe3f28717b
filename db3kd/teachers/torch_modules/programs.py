"""Loads programs: TorchScript files and exported programs (`.pt2`).

A program is code. TorchScript can read and write files, and `torch.export.load` unpickles parts of
its file. Callers load either only if the user trusts it (`trust_code=True`).
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.models.metadata import METADATA_FILE, ModelMetadata
from db3kd.teachers.base import TeacherError


def is_torchscript(path: Path) -> bool:
    """Returns whether the file is a zip archive as `torch.jit.save` writes it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.partition("/")[2] == "constants.pkl" for entry in archive.namelist())


def read_torchscript(path: Path) -> tuple[nn.Module, ModelMetadata | None]:
    """Loads a TorchScript file on the CPU, and the metadata that `export_model` adds to it."""
    files = {METADATA_FILE: b""}
    with warnings.catch_warnings():
        # The warning is for authors of TorchScript. Existing teachers still have to be loaded.
        warnings.filterwarnings(
            "ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning
        )
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=files)
    return module, ModelMetadata.from_json(files[METADATA_FILE])


class ExportedModule(nn.Module):
    """An exported program as a module. Its graph declares the shape of its images.

    Attributes:
        image_shape: Shape of one image.
        classes: Number of scores per image.
        min_batch: The smallest batch of the graph. Smaller batches are padded.
        max_batch: The largest batch of the graph, or None if there is no limit.
        metadata: The metadata that `export_model` adds to the file, or None.
    """

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        device: torch.device,
        metadata: ModelMetadata | None = None,
    ) -> None:
        super().__init__()
        self.metadata = metadata
        signature = program.graph_signature
        (source,), (result,) = signature.user_inputs, signature.user_outputs
        values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        batch, *image_shape = values[source].shape
        self.image_shape = tuple(image_shape)
        self.classes = values[result].shape[-1]
        self.min_batch, self.max_batch = _batch_range(batch, program)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        # The tuple hides the graph from nn.Module, whose eval() the graph would refuse. A program
        # is exported in eval mode or not, and this cannot be changed.
        self._graph = (program.module(check_guards=False),)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExportedModule":
        """Returns the module itself, because it cannot change."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores of images [N, *image_shape]."""
        missing = self.min_batch - len(images)
        if missing <= 0:
            return self._graph[0](images)
        padding = images[-1:].expand(missing, *images.shape[1:])
        return self._graph[0](torch.cat([images, padding]))[: len(images)]


def read_exported(path: Path, device: torch.device) -> ExportedModule:
    """Loads a file of `torch.export.save`.

    Raises:
        TeacherError: If the program does not map one batch of images to one batch of scores.
    """
    files = {METADATA_FILE: ""}  # torch ignores an empty dictionary
    program = torch.export.load(path, extra_files=files)
    metadata = ModelMetadata.from_json(files[METADATA_FILE])
    try:
        return ExportedModule(program, device, metadata)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TeacherError(
            f"{path}: expected a program that maps a batch of images to a batch of scores ({error})"
        ) from error


def _batch_range(
    batch: int | torch.SymInt, program: torch.export.ExportedProgram
) -> tuple[int, int | None]:
    if isinstance(batch, int):
        return batch, batch
    allowed = program.range_constraints[batch.node.expr]
    return int(allowed.lower), int(allowed.upper) if allowed.upper.is_Integer else None
