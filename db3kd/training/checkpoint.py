"""`Checkpoint`: a file from which stopped training continues."""

import glob
import hashlib
import io
import json
import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from db3kd.arguments.plain import check_not_negative, check_path, check_type
from db3kd.errors import InputError
from db3kd.storage.filesystem import check_no_folder, is_leftover, write_atomically
from db3kd.storage.manifest import plain

_MAGIC = b"db3kd training checkpoint 2\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


class CheckpointError(InputError):
    """A file is damaged, or is the checkpoint of another training run."""


class Checkpoint:
    """A file that training writes from time to time, and continues from if it exists.

    If training is killed at any moment and called again with the same arguments, it gives the same
    network as without the interruption, bit for bit if the device computes deterministically. The
    file holds everything that the next steps depend on: weights, buffers and their average, the
    optimizer, the schedule, the gradient scaler, the random states of torch, NumPy and Python, and
    the state of callbacks. A network must keep nothing else that changes in training.

    The file is written atomically. A file of another training run or a damaged file is an error: it
    is neither overwritten nor continued from.

    If there are several processes, the first one writes the file, and all must be able to read it.

    Example:
        >>> checkpoint = db3kd.Checkpoint("runs/mine/student.checkpoint", identity=fingerprint)
        >>> student = db3kd.train_student(make, images, labels, checkpoint=checkpoint)
        >>> db3kd.save_model("runs/mine/student.safetensors", student, ...)
        >>> checkpoint.remove()

    Args:
        path: The file. Only one training run may use it at a time.
        identity: What determines the result besides `TrainSettings` and the network's shape: a
            digest, plain values or tensors that change with the images, the targets, the loss and
            the initial weights; None if no other training writes to the path.
        every_seconds: The minimum time between two writes, at least 0. The file is also written at
            the end.

    Raises:
        IsADirectoryError: If the path is a folder.
        ValueError: If `every_seconds` is negative.
    """

    def __init__(
        self, path: str | Path, identity: object = None, every_seconds: float = 30.0
    ) -> None:
        check_not_negative(every_seconds, "every_seconds")
        self.path = check_path(path, "path")
        check_no_folder(self.path, "path")
        self._file = self.path.absolute()  # a callback may change the working directory
        self._identity = plain(identity)
        self._every_seconds = every_seconds
        self._written = time.monotonic()

    def due(self) -> bool:
        """Returns whether it is time to write."""
        return time.monotonic() - self._written >= self._every_seconds

    def load(self, training: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the state that was saved last.

        Args:
            training: What was passed to `save`.

        Returns:
            The state, its tensors on the CPU; None if there is no file.

        Raises:
            CheckpointError: If the file is damaged or belongs to another training run.
        """
        self._remove_leftovers()
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return None
        if not content.startswith(_MAGIC):
            expected, found = (
                each.decode(errors="replace").strip() for each in (_MAGIC, content[: len(_MAGIC)])
            )
            raise CheckpointError(
                f"{self.path}: expected a training checkpoint, which begins with {expected!r}, got "
                f"a file that begins with {found!r}; use another path"
            )
        body = content[len(_MAGIC) :]
        digest, payload = body[:_DIGEST_BYTES], body[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            raise self._damaged()
        try:
            loaded = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            header, state = json.loads(loaded["header"]), loaded["state"]
        except (RuntimeError, ValueError, LookupError, TypeError, pickle.UnpicklingError) as error:
            raise self._damaged() from error
        self._compare(header, self._header(training))
        return state

    def save(self, training: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Replaces the file.

        Args:
            training: Plain values that describe the training run; compared when it is resumed.
            state: Tensors and plain values, nested in dicts and lists. NumPy's numbers become
                Python's.

        Raises:
            OSError: If the file cannot be written.
        """
        payload = io.BytesIO()
        content = {"header": json.dumps(self._header(training)), "state": _loadable(dict(state))}
        torch.save(content, payload)
        written = payload.getvalue()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file, _MAGIC + hashlib.sha256(written).digest() + written)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Removes the file, if there is one. Call it once the trained network is stored."""
        self._file.unlink(missing_ok=True)
        self._remove_leftovers()

    def _header(self, training: Mapping[str, Any]) -> dict[str, Any]:
        return {"identity": self._identity, **plain(training)}

    def _compare(self, found: dict[str, Any], expected: dict[str, Any]) -> None:
        difference = _difference(found, expected)
        if difference is not None:
            raise CheckpointError(
                f"{self.path}: expected a checkpoint of this training, got one with another "
                f"{difference}; use another path, or remove the file to train from the start"
            )

    def _damaged(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: this checkpoint is damaged; remove it to train from the start"
        )

    def _remove_leftovers(self) -> None:
        """Removes the remains of a write during which a process was killed."""
        for file in self._file.parent.glob(f".{glob.escape(self._file.name)}.*"):
            if is_leftover(file):
                file.unlink(missing_ok=True)


def _loadable(value: Any) -> Any:
    """Returns a value with Python's numbers, because the restricted reader refuses NumPy's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {_loadable(key): _loadable(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_loadable(item) for item in value)
    return value


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    """Describes the first entry in which two nested mappings differ; None if they are equal."""
    for name in expected | found:
        theirs, ours = found.get(name), expected.get(name)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            inner = _difference(theirs, ours)
            if inner is not None:
                return f"{name}.{inner}"
        elif theirs != ours:
            return f"{name}: {theirs!r} instead of {ours!r}"
    return None


CheckpointLike: TypeAlias = Checkpoint | str | os.PathLike[str]
"""A checkpoint, or the path of its file."""


def as_checkpoint(checkpoint: CheckpointLike | None) -> Checkpoint | None:
    """Returns a checkpoint, which is made of a path if that is given.

    Raises:
        IsADirectoryError: If the path is a folder.
        TypeError: If the argument is neither.
    """
    if checkpoint is None or isinstance(checkpoint, Checkpoint):
        return checkpoint
    check_type(checkpoint, (str, os.PathLike), "checkpoint", "db3kd.Checkpoint or a path")
    path = check_path(checkpoint, "checkpoint")
    check_no_folder(path, "checkpoint")
    return Checkpoint(path)
