"""Fingerprints of teachers: digests of what they answer by."""

from db3kd.teachers.fingerprints.fingerprint import (
    function_fingerprint,
    module_fingerprint,
    weights_fingerprint,
)

__all__ = ["function_fingerprint", "module_fingerprint", "weights_fingerprint"]
