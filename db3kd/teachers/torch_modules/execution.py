"""How a torch module runs: device, precision, compilation and CUDA graphs."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from db3kd.errors import ArgumentError
from db3kd.teachers.signature import ModelOverrides
from db3kd.teachers.torch_modules.module import ModuleTeacher


@dataclass(frozen=True)
class ExecutionOptions:
    """How to run a teacher's torch module; see `ModuleTeacher`.

    Attributes:
        device: The device to run on.
        autocast: The dtype for torch.autocast, or None.
        compile: Run the module through torch.compile.
        cuda_graphs: Replay forward passes as CUDA graphs.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    compile: bool = False
    cuda_graphs: bool = False

    def module_teacher(
        self,
        module: nn.Module,
        source: str,
        overrides: ModelOverrides,
        max_batch: int | None,
        *,
        name: str,
        fingerprint: str | None = None,
    ) -> ModuleTeacher:
        """Returns a teacher that runs the module with these options.

        Args:
            module: The module.
            source: Where the module is from, for errors about missing declarations.
            overrides: Image shape, number of classes and so on; a module declares nothing itself.
            max_batch: Maximum number of images per forward pass, or None to choose it.
            name: The teacher's name in errors.
            fingerprint: SHA-256 hex digest, or None to compute it from the module.

        Raises:
            ValueError: If the declarations are incomplete or the options contradict each other.
        """
        image_shape, classes, bounds = overrides.require_all(source)
        return ModuleTeacher(
            module,
            image_shape,
            classes,
            bounds,
            max_batch,
            self.autocast,
            self.device,
            compile=self.compile,
            cuda_graphs=self.cuda_graphs,
            name=name,
            fingerprint=fingerprint,
            class_names=overrides.class_names,
            threshold=overrides.threshold,
            features=overrides.features,
        )

    def refuse_for(self, source: str | Path) -> None:
        """Refuses options that only torch modules have, for a source that is none.

        Raises:
            ValueError: If any of them is set.
        """
        for name in ("autocast", "compile", "cuda_graphs"):
            if getattr(self, name):
                raise ArgumentError(
                    name, f"applies to torch modules only, got {source}; omit {name}"
                )
