"""Teachers in files, and teachers named `package.module:object`."""

import hashlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.models.networks import build_model, model_names
from db3kd.models.weights import read_saved_model
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.checkpoints import listed, read_checkpoint, reading, without_prefix
from db3kd.teachers.description import is_described, load_described
from db3kd.teachers.function import FunctionTeacher
from db3kd.teachers.module import ModuleTeacher
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.programs import is_torchscript, read_exported, read_torchscript
from db3kd.teachers.signature import ModelOverrides
from db3kd.validation import (
    check_bounds,
    check_class_names,
    check_count,
    check_image_shape,
    import_named,
)

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def load_teacher(
    source: str | Path,
    *,
    model: str | None = None,
    image_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    bounds: tuple[float, float] | None = None,
    max_batch: int | None = None,
    autocast: torch.dtype | None = None,
    device: torch.device | str | None = None,
    compile: bool = False,
    cuda_graphs: bool = False,
    assumed_shape: tuple[int, ...] | None = None,
    assumed_classes: int | None = None,
    trust_code: bool = False,
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
) -> Teacher:
    """A teacher from a file, an address or a name. Nothing in a file is unpickled.

    source is one of
      weights.safetensors     from `save_model`: needs nothing more; from elsewhere: `model`,
                              `image_shape`, `classes`
      weights.pt, .pth        a state dict read with weights_only=True: `model`, `image_shape`,
                              `classes`
      program.pt              TorchScript: `image_shape`, `classes`, `trust_code`
      program.pt2             torch.export: shape and classes are read from its graph; `trust_code`
      model.onnx              run by ONNX Runtime: shape and classes are read where it tells them
      http://…, grpc://…      a model behind the Open Inference Protocol v2, as `ModelAddress` reads
                              it: shape and classes are read from its metadata where it tells them
      teacher.toml, .json     a description of any of these files or addresses, or of a model
                              behind another JSON service, with preprocessing, a label file, limits
                              and secrets: see db3kd/teachers/description.py
      package.module:object   a teacher or a module; a factory of either, called without arguments;
                              or a function from float32 arrays [N, *image_shape] to N classes:
                              `image_shape`, `classes`. A function is taken for a factory when it
                              can be called without arguments.
    trust_code: TorchScript and exported programs are code. They can read and write any file that
    their user may, so they are read only with True. Weights, ONNX files and addresses never are.
    model is what `build_model` takes. A file that names a package.module:factory is obeyed only
    when `model` repeats it. bounds is (0, 1) unless the file says otherwise; device is the CPU.
    autocast, compile and cuda_graphs are those of `ModuleTeacher`, and belong to torch modules.
    class_names are the names of the classes in the order of their numbers; threshold is that of
    `ModuleTeacher`, for a model that gives one score an image.
    assumed_shape and assumed_classes stand in for `image_shape` and `classes` where neither these
    nor the source tell them.

    Raises FileNotFoundError, TeacherError for a file that is corrupt, pickled or does not fit, and
    ValueError for missing arguments.
    """
    device = torch.device(device or "cpu")
    given = {
        "image_shape": image_shape,
        "classes": classes,
        "bounds": bounds,
        "assumed_shape": assumed_shape,
        "assumed_classes": assumed_classes,
        "class_names": class_names,
        "threshold": threshold,
    }
    running = {
        "autocast": autocast,
        "device": device,
        "compile": compile,
        "cuda_graphs": cuda_graphs,
    }
    if is_described(source):
        if Path(source).suffix not in (".toml", ".json"):
            _refuse_running(source, running)  # only a description may be of a torch module
        described = _DescribedModule(str(source), model, running, trust_code)
        teacher = load_described(source, given, max_batch, device, described.open)
        if not isinstance(teacher, ModuleTeacher):
            _refuse_running(source, running)
        return teacher
    path = Path(source)
    if _REFERENCE.fullmatch(str(source)) and not path.exists():
        return _named_teacher(str(source), given, max_batch, running)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a teacher file or package.module:object")
    fingerprint = None
    if path.suffix == ".safetensors":
        module, given = _read_safetensors(path, model, given)
    elif path.suffix == ".pt2":
        _require_trust(path, "an exported program", trust_code)
        module = reading(path, lambda: read_exported(path, device))
        fingerprint = _file_hash(path)
        given, max_batch = _exported_settings(module, given, max_batch)
    elif path.suffix not in (".pt", ".pth", ".ckpt", ".bin", ".ts"):
        raise ValueError(
            f"{path}: expected .safetensors, .pt, .pth, .pt2, .onnx, .toml or .json, got "
            f"{path.suffix or 'no suffix'!r}"
        )
    elif is_torchscript(path):
        _require_trust(path, "TorchScript", trust_code)
        module, fingerprint = reading(path, lambda: read_torchscript(path)), _file_hash(path)
    else:
        module = _build(path, model, given, read_checkpoint(path))
    return ModuleTeacher(
        module,
        *_complete(str(path), given),
        max_batch,
        name=path.name,
        fingerprint=fingerprint,
        **_named(given),
        **running,
    )


@dataclass(frozen=True)
class _DescribedModule:
    """What `load_teacher` was given to open a description's torch file or function with."""

    source: str
    model: str | None
    running: dict[str, Any]
    trust_code: bool

    def open(
        self,
        file: Path | str,
        architecture: str | None,
        overrides: ModelOverrides,
        preprocessing: Preprocessing,
        max_batch: int | None,
    ) -> Teacher:
        """file: of a torch module, or `package.module:function`."""
        if isinstance(file, str):
            return self._open_function(file, overrides, preprocessing, max_batch)
        if self.model is None and architecture not in (None, *model_names()):
            raise ValueError(
                f"{self.source}: its architecture is {architecture!r}; a file does not choose what "
                "code runs, so repeat it as model="
            )
        shape = overrides.image_shape and preprocessing.input_shape(tuple(overrides.image_shape))
        assumed = overrides.assumed_shape and preprocessing.input_shape(
            tuple(overrides.assumed_shape)
        )
        inner = load_teacher(
            file,
            model=self.model or architecture,
            image_shape=shape,
            classes=overrides.classes,
            device=self.running["device"],
            assumed_shape=assumed,
            assumed_classes=overrides.assumed_classes or (overrides.names and len(overrides.names)),
            trust_code=self.trust_code,
            threshold=overrides.threshold,
        )
        _check_range(self.source, inner.bounds, preprocessing)
        outer = overrides.image_shape or preprocessing.image_shape(inner.image_shape)
        outer = tuple(outer or overrides.assumed_shape or inner.image_shape)
        fingerprint = hashlib.sha256(f"{inner.fingerprint()} {preprocessing}".encode())
        return ModuleTeacher(
            PreprocessedModule(inner.module, preprocessing),
            outer,
            inner.classes,
            preprocessing.bounds,
            max_batch,
            name=Path(self.source).name,
            fingerprint=fingerprint.hexdigest(),
            class_names=overrides.names or inner.class_names,
            threshold=overrides.threshold,
            **self.running,
        )

    def _open_function(
        self,
        reference: str,
        overrides: ModelOverrides,
        preprocessing: Preprocessing,
        max_batch: int | None,
    ) -> Teacher:
        if not self.trust_code:
            raise ValueError(
                f"{self.source}: its function is {reference!r}; a file does not choose what code "
                "runs: if you trust it, give trust_code=True"
            )
        given = {
            "image_shape": overrides.image_shape,
            "classes": overrides.classes or (overrides.names and len(overrides.names)),
            "assumed_shape": overrides.assumed_shape,
            "assumed_classes": overrides.assumed_classes,
            "bounds": preprocessing.bounds,
            "class_names": overrides.names,
            "threshold": None,
        }
        shape, classes, bounds = _complete(self.source, given)
        preprocessing.input_shape(shape)  # refuses steps that do not fit
        function = import_named(reference, "function")
        inner = FunctionTeacher(function, shape, classes, bounds)
        fingerprint = hashlib.sha256(f"{inner.fingerprint()} {preprocessing}".encode())
        return FunctionTeacher(
            lambda images: function(preprocessing(torch.from_numpy(images))),
            shape,
            classes,
            bounds,
            max_batch,
            name=Path(self.source).name,
            fingerprint=fingerprint.hexdigest(),
            class_names=overrides.names,
        )


def _check_range(source: str, declared: tuple[float, float], preprocessing: Preprocessing) -> None:
    """Refuses steps that do not end at the range which a file of `save_model` declares."""
    reached = preprocessing.scale or preprocessing.bounds
    normalised = any(preprocessing.mean) or any(value != 1 for value in preprocessing.std)
    if declared not in ((0.0, 1.0), reached) and not normalised:
        lower, upper = declared
        raise ValueError(
            f"{source}: its file takes images in [{lower:g}, {upper:g}], and its steps end in "
            f"[{reached[0]:g}, {reached[1]:g}]; set scale = [{lower:g}, {upper:g}] in "
            "[preprocessing]"
        )


class PreprocessedModule(nn.Module):
    """A module behind the steps that stand between images and its input."""

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module = module
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> the module's scores."""
        prepared = self.preprocessing.steps(images)
        return self.module(prepared.to(images.dtype))


def _require_trust(path: Path, kind: str, trust_code: bool) -> None:
    if not trust_code:
        raise ValueError(
            f"{path}: is {kind}, which is code: it can read and write any file that you may; if "
            "you trust whoever made it, give trust_code=True, else ask for weights or an ONNX file"
        )


def _read_safetensors(
    path: Path, model: str | None, given: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    saved = reading(path, lambda: read_saved_model(path))
    if saved.model is not None:
        if model is None and saved.model not in model_names():
            raise ValueError(
                f"{path}: its model is {saved.model!r}; a file does not choose what code runs, so "
                "repeat it as model="
            )
        model = model or saved.model
        given = {
            key: getattr(saved, key, None) if value is None else value
            for key, value in given.items()
        }
    return _build(path, model, given, saved.state), given


def _build(
    path: Path, model: str | None, given: dict[str, Any], state: dict[str, Tensor]
) -> nn.Module:
    if model is None:
        raise ValueError(f"{path}: holds weights only; name their architecture with model=")
    image_shape, classes, _ = _complete(str(path), given)
    module = build_model(model, image_shape, classes)
    wanted = module.state_dict()
    state = without_prefix(state, wanted)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise TeacherError(
            f"{path}: its weights do not fit {model} for images {image_shape} and {classes} "
            f"classes: the file has {listed(state)}, the model {listed(wanted)}: {error}"
        ) from error
    return module


def _exported_settings(
    module: Any, given: dict[str, Any], max_batch: int | None
) -> tuple[dict[str, Any], int | None]:
    given = {**given}
    given["image_shape"] = given["image_shape"] or tuple(module.shape)
    if given["threshold"] is None:
        given["classes"] = given["classes"] or module.classes
    if module.most is not None:
        max_batch = min(max_batch or module.most, module.most)
    return given, max_batch


def _named_teacher(
    reference: str,
    given: dict[str, Any],
    max_batch: int | None,
    running: dict[str, Any],
) -> Teacher:
    found = import_named(reference, "teacher")
    if not isinstance(found, nn.Module) and not _is_teacher(found) and _takes_no_arguments(found):
        found = found()
    if isinstance(found, nn.Module) and not _is_teacher(found):
        complete = _complete(reference, given)
        return ModuleTeacher(
            found, *complete, max_batch, name=reference, **_named(given), **running
        )
    _refuse_running(reference, running)
    if _is_teacher(found):
        return _with_names(found, given["class_names"])
    if callable(found):
        _refuse_threshold(reference, given)
        names = given["class_names"]
        complete = _complete(reference, given)
        return FunctionTeacher(found, *complete, max_batch, reference, class_names=names)
    raise TeacherError(
        f"{reference}: expected a teacher, a torch module, a factory or a function, got "
        f"{type(found).__name__}"
    )


def _named(given: dict[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in ("class_names", "threshold")}


def _with_names(teacher: Teacher, names: Sequence[str] | None) -> Teacher:
    if names is not None:
        teacher.class_names = check_class_names(names, teacher.classes, describe(teacher))
    return teacher


def _refuse_threshold(reference: str, given: dict[str, Any]) -> None:
    if given["threshold"] is not None:
        raise ValueError(
            f"threshold: belongs to a model that gives scores; {reference} is a function, which "
            "answers classes"
        )


def _refuse_running(source: str | Path, running: dict[str, Any]) -> None:
    """Says of the ways to run a torch module that they mean nothing for another teacher."""
    for name in ("autocast", "compile", "cuda_graphs"):
        if running[name]:
            raise ValueError(f"{name}: belongs to a torch module, which {source} is not")


def _is_teacher(found: object) -> bool:
    return isinstance(found, Teacher) and not isinstance(found, type)


def _takes_no_arguments(found: object) -> bool:
    try:
        inspect.signature(found).bind()  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _complete(who: str, given: dict[str, Any]) -> tuple[tuple[int, ...], int, tuple[float, float]]:
    names = given["class_names"]
    reported = 2 if given["threshold"] is not None else None if names is None else len(names)
    given = {
        **given,
        "image_shape": given["image_shape"] or given["assumed_shape"],
        "classes": given["classes"] or reported or given["assumed_classes"],
    }
    missing = [f"{key}=" for key in ("image_shape", "classes") if given[key] is None]
    if missing:
        raise ValueError(f"{who}: does not say what its images are; give {' and '.join(missing)}")
    return (
        check_image_shape(tuple(given["image_shape"])),
        check_count(given["classes"], "classes", least=2),
        check_bounds(given["bounds"] or (0.0, 1.0)),
    )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
