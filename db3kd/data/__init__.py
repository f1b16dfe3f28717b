"""Image sets: loaded by name, folder or file, or made of arrays and data sets in memory.

An `ImageSet` holds images in [0, 1] with the channels first, and reads them when they are needed.
Labels are renumbered as the teacher numbers its classes. Pseudo samples, which `db3kd.synthesis`
makes, are loaded here too.
"""

from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource, NamedImages, TensorImages
from db3kd.data.loading import load_data
from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples

__all__ = [
    "AugmentedImages",
    "ImageSet",
    "ImageSource",
    "ImagesLike",
    "NamedImages",
    "PseudoSamples",
    "TeacherLike",
    "TensorImages",
    "load_data",
    "load_pseudo_samples",
]
