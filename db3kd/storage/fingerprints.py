"""Fingerprints of models that answer with class names."""

import hashlib
import json
from collections.abc import Sequence

_NAMES = "+"
"""What separates the digest of the class names from that of the rest."""


def fingerprint_with_names(model: str, names: Sequence[str] | None) -> str:
    """Returns a fingerprint that tells apart whether a model or only the names of classes changed.

    Example:
        >>> fingerprint_with_names("7f3a90c2", ["cat", "dog"])
        '7f3a90c2+cd73b2771c519ee7'

    Args:
        model: Digest that changes with the model, but not with the names.
        names: The class names in the order of the class numbers, or None.
    """
    if names is None:
        return model
    content = json.dumps(list(names)).encode()
    return f"{model}{_NAMES}{hashlib.sha256(content).hexdigest()[:16]}"


def split_fingerprint(fingerprint: str) -> tuple[str, str]:
    """Returns the digest of the model, and the rest; for a rescaled model with the same names."""
    model, mark, names = fingerprint.partition(_NAMES)
    return model, mark + names
