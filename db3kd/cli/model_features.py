"""The features of tables, as the models of a command declare them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from db3kd.cli.errors import naming_options
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.data.source import Source
from db3kd.errors import ArgumentError, InputError
from db3kd.tables import Features
from db3kd.tables.checks import InvalidValueError
from db3kd.teachers.model_sources import declared_features, stated_columns


@dataclass(frozen=True)
class SourceOfModel(Source):
    """Where the rows of a table come from if a model declares their features."""

    def load(self, columns: Sequence[str] | None = None) -> ImageSet:
        """Loads the rows. An error does not advise other features, which the model would refuse."""
        try:
            return super().load(columns)
        except InvalidValueError as error:
            raise error.advising("") from None


@dataclass(frozen=True)
class SourceOfFittedModel(Source):
    """Where the rows of a table come from if a model was fitted on some of its columns.

    Attributes:
        columns: These columns.
    """

    columns: Sequence[str] = ()

    def load(self, columns: Sequence[str] | None = None) -> ImageSet:
        """Loads the rows with features that are inferred from the columns of the model."""
        with naming_options(columns="columns of the fitted model"):
            return super().load(columns or self.columns)

    def with_features_of(self, images: NamedImages) -> Source:
        """Returns what a manifest records: the features say which columns they are."""
        source = super().with_features_of(images)
        return Source(**{field.name: getattr(source, field.name) for field in fields(Source)})


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


def columns_of_models(models: Iterable[str | None]) -> list[str] | None:
    """Returns the columns that the first fitted model was fitted on; None if none states them."""
    stated = (stated_columns(model) for model in models if model is not None)
    return next((columns for columns in stated if columns is not None), None)
