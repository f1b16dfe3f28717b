"""Reading a program file, TorchScript or exported, without unpickling what it holds.

`torch.jit.load` reads its pickles with an interpreter of its own that knows tensors and TorchScript
classes only. `torch.export.load` is another matter: it unpickles sample inputs, constants and some
weights, evaluates size expressions and guards as Python, looks up any function below `torch` that
the graph names, and writes the graph's names into source code. So an exported program is first
copied: its graph is checked string by string against what an exporter writes, and only raw tensors
and the checked graph are handed on.
"""

import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.teachers.base import TeacherError

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"[\w.+\-]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file)[a-z]\w*\.\w+|torch\.ops\.aten\._[a-z]\w*\.\w+"
    r"|torch\.ops\.higher_order\.(cond|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)"
)
_EXPRESSION = re.compile(r"[\w\s()+\-*/,='<>]*")
_EXPRESSION_WORD = re.compile(
    r"\d+|[suz]\d+|Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing"
    r"|CeilToInt|FloorToInt|TruncToInt|ToFloat|IntTrueDiv|FloatTrueDiv|PowByNatural|Identity|Eq|Ne|Lt|Le|Gt|Ge"
    r"|Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|And|Or|Not"
    r"|positive|nonnegative|integer|real|True|False"
)
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip archive laid out as `torch.jit.save` does."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(entry.partition("/")[2] == "constants.pkl" for entry in archive.namelist())


def read_torchscript(path: Path) -> nn.Module:
    """The module of a TorchScript file, on the CPU."""
    with warnings.catch_warnings():
        # TorchScript is deprecated for authors; teachers that exist in it must still be read.
        warnings.filterwarnings(
            "ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning
        )
        return torch.jit.load(str(path), map_location="cpu")


class ExportedModule(nn.Module):
    """An exported program as a module; what it was exported for is read from its graph.

    least    the smallest batch it was exported for; smaller ones are padded
    most     the largest, or None where there is no limit
    shape    image shape
    classes  number of scores an image
    """

    def __init__(self, program: torch.export.ExportedProgram, device: torch.device) -> None:
        super().__init__()
        signature = program.graph_signature
        (source,), (result,) = signature.user_inputs, signature.user_outputs
        values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
        first, *self.shape = values[source].shape
        self.least, self.most = _batch_range(first, program)
        self.classes = values[result].shape[-1]
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        # In a tuple, hidden from nn.Module: an exported graph refuses eval(), and it is in eval
        # mode or not for good.
        self._graph = (program.module(check_guards=False),)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExportedModule":
        return self  # nothing changes it

    def forward(self, images: Tensor) -> Tensor:
        missing = self.least - len(images)
        if missing <= 0:
            return self._graph[0](images)
        padding = images[-1:].expand(missing, *images.shape[1:])
        return self._graph[0](torch.cat([images, padding]))[: len(images)]


def _batch_range(
    batch: int | torch.SymInt, program: torch.export.ExportedProgram
) -> tuple[int, int | None]:
    if isinstance(batch, int):
        return batch, batch
    allowed = program.range_constraints[batch.node.expr]
    return int(allowed.lower), int(allowed.upper) if allowed.upper.is_Integer else None


def read_exported(path: Path, device: torch.device) -> ExportedModule:
    """The module of a `torch.export.save` file; TeacherError where that is not plain data."""
    checked = _copy_checked(path)
    try:
        program = torch.export.load(checked)
        return ExportedModule(program, device)
    except (ValueError, TypeError, KeyError) as error:
        raise TeacherError(
            f"{path}: expected a program from one batch of images to one batch of scores ({error})"
        ) from error


def _copy_checked(path: Path) -> io.BytesIO:
    """The archive again, of raw tensors, their layout and the checked graph; nothing pickled."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        # Written under one name of ours; the reader takes whatever stands before the first slash as
        # the root.
        entries = {entry.partition("/")[2]: entry for entry in source.namelist()}
        if "models/model.json" not in entries:
            raise TeacherError(
                f"{path}: expected a program written by torch.export.save, found no graph in it"
            )
        for entry, stored in entries.items():
            if entry == "models/model.json":
                graph = _checked_graph(json.loads(source.read(stored)), path)
                target.writestr(f"program/{entry}", json.dumps(graph))
            elif entry in (
                "data/weights/model_weights_config.json",
                "data/constants/model_constants_config.json",
            ):
                layout = json.loads(source.read(stored))
                _check_layout(layout, path)
                target.writestr(f"program/{entry}", json.dumps(layout))
            elif re.fullmatch(r"data/(weights/weight|constants/tensor)_\d+", entry) or entry in (
                "archive_format",
                "archive_version",
                "byteorder",
                ".data/version",
            ):
                target.writestr(f"program/{entry}", source.read(stored))
        target.writestr("program/data/sample_inputs/model.pt", b"")  # read as: none
    copy.seek(0)
    return copy


def _check_layout(layout: dict[str, Any], path: Path) -> None:
    for name, entry in layout["config"].items():
        if entry["use_pickle"] is not False or not re.fullmatch(
            r"(weight|tensor)_\d+", entry["path_name"]
        ):
            raise TeacherError(
                f"{path}: {name!r} is stored pickled, and db3kd unpickles nothing; export a "
                "module of plain tensors"
            )


def _checked_graph(program: dict[str, Any], path: Path) -> dict[str, Any]:
    """The graph without guards and metadata, which loading would run as code or look up."""
    program["guards_code"] = []
    program["graph_module"]["metadata"] = {}
    _check_strings(program, "", path)
    return program


def _check_strings(value: Any, key: str, path: Path) -> None:
    """Refuses every string that an exporter would not have written under `key`."""
    if isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}
        for name, inner in value.items():
            if not _PLAIN.fullmatch(name):
                raise _suspicious(path, name)
            _check_strings(inner, name, path)
    elif isinstance(value, list):
        for inner in value:
            _check_strings(inner, key, path)
    elif isinstance(value, str) and not _is_plausible(value, key):
        raise _suspicious(path, value)


def _is_plausible(text: str, key: str) -> bool:
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key in ("name", "forward_arg_names", "graph_name"):
        return not text or _IDENTIFIER.fullmatch(text) is not None
    if key == "expr_str":
        words = re.findall(r"\w+", text)
        return bool(_EXPRESSION.fullmatch(text)) and all(map(_EXPRESSION_WORD.fullmatch, words))
    if key in ("in_spec", "out_spec"):
        return _is_plain_tree(json.loads(text)[1])
    if key in ("as_string", "as_strings"):
        return True  # an operator's argument, such as an interpolation's mode; quoted where it goes
    return _PLAIN.fullmatch(text) is not None


def _is_plain_tree(tree: dict[str, Any]) -> bool:
    return tree["type"] in _TREE_TYPES and all(map(_is_plain_tree, tree["children_spec"]))


def _suspicious(path: Path, text: str) -> TeacherError:
    return TeacherError(
        f"{path}: the graph holds {text[:80]!r}, which no plain image classifier needs; not loaded"
    )
