"""Digests of the images of a data set: one of each image, and one of all."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

DIGEST_BYTES = 16
"""Stored bytes of the SHA-256 of an image."""

_MAGIC = b"db3kd images 1"


@dataclass(frozen=True)
class ImageDigests:
    """Digests of the images of a set in order, with their labels.

    Attributes:
        kind: Image shape and number of classes, on one line.
        rows: [N, W] uint8, the digest of each image, followed by its label if there are labels.
    """

    kind: str
    rows: np.ndarray

    @classmethod
    def of(
        cls,
        digests: np.ndarray,
        labels: Tensor | None,
        image_shape: Sequence[int],
        classes: int | None,
    ) -> "ImageDigests":
        """Combines digests, [N, DIGEST_BYTES] uint8, with labels, [N] int64."""
        if labels is not None:
            numbers = labels.numpy().astype("<i8").view(np.uint8).reshape(len(digests), 8)
            digests = np.concatenate([digests, numbers], 1)
        return cls(f"{tuple(image_shape)} {classes}", digests)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def content(self) -> bytes:
        """Everything as bytes, for a file."""
        count, width = self.rows.shape
        head = f"{self.kind} {count} {width}\n".encode()
        return _MAGIC + b"\n" + head + self.rows.tobytes()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `content`, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @classmethod
    def read(cls, content: bytes, fingerprint: str) -> "ImageDigests | None":
        """Parses bytes; returns None if their fingerprint is another one."""
        if hashlib.sha256(content).hexdigest() != fingerprint:
            return None
        _, head, body = content.split(b"\n", 2)
        kind, count, width = head.decode().rsplit(" ", 2)
        return cls(kind, np.frombuffer(body, np.uint8).reshape(int(count), int(width)))

    def changed(self, now: "ImageDigests") -> np.ndarray | None:
        """Returns [n] int64, the rows at which `now` has another image or label.

        Returns None if number or kind of the images differ, so that rows do not correspond.
        """
        if self.kind != now.kind or self.rows.shape != now.rows.shape:
            return None
        return np.flatnonzero((self.rows != now.rows).any(1))
