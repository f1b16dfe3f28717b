"""Image sets: where their pixels lie, how they are loaded, and what their classes are called."""

from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource, NamedImages, TensorImages
from db3kd.data.loading import load_data
from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples

__all__ = [
    "ImageSet",
    "ImageSource",
    "NamedImages",
    "PseudoSamples",
    "TensorImages",
    "load_data",
    "load_pseudo_samples",
]
