"""The features of tables, as the models of a command declare them."""

from collections.abc import Iterable
from dataclasses import dataclass

from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError, InputError
from db3kd.labelling.runs.source import Source
from db3kd.tables import Features
from db3kd.tables.checks import InvalidValueError
from db3kd.teachers.model_sources import declared_features


@dataclass(frozen=True)
class SourceOfModel(Source):
    """Where the rows of a table come from if a model declares their features."""

    def load(self) -> ImageSet:
        """Loads the rows. An error does not advise other features, which the model would refuse."""
        try:
            return super().load()
        except InvalidValueError as error:
            raise error.advising("") from None


def features_of_models(models: Iterable[str | None], given: Features | None) -> Features | None:
    """Returns the features that models declare; None if none of them declares any.

    Args:
        models: The models, as `load_teacher` takes them; None for a model that a command lacks.
        given: The features of --features, or None.

    Raises:
        ValueError: If a model declares others than another one, or than the given ones.
    """
    found: Features | None = None
    owner = None
    for model in models:
        declared = None if model is None else declared_features(model)
        if declared is None:
            continue
        if given is not None and declared != given:
            raise ArgumentError(
                "features",
                f"expected those that {model} declares, got others; leave --features out, because "
                "they are read from the model",
            )
        if found is not None and declared != found:
            raise InputError(
                f"{owner} and {model}: expected models that encode rows alike, got different "
                "features; train both with the same --features"
            )
        found, owner = declared, model
    return found
