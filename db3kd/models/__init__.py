"""Networks: built by name, saved to weights files and read back.

`build_model` knows the networks of the paper and imports any other by `package.module:factory`.
`save_model` writes a network's weights together with what `load_teacher` needs to use them.
Teachers, students and surrogates are all saved in this format. `ModelMetadata` is what such a file
declares, and what exported files of other formats declare too.
"""

from db3kd.models.ensemble import Ensemble
from db3kd.models.metadata import ModelMetadata
from db3kd.models.networks import (
    build_model,
    check_model,
    default_model,
    is_own_model,
    model_names,
)
from db3kd.models.weights import SavedModel, read_saved_model, save_model

__all__ = [
    "Ensemble",
    "ModelMetadata",
    "SavedModel",
    "build_model",
    "check_model",
    "default_model",
    "is_own_model",
    "model_names",
    "read_saved_model",
    "save_model",
]
