"""What distillations take: a teacher for images in [0, 1], and images in its numbering."""

from db3kd.data.arguments import ImagesLike, TeacherLike, as_images, as_teacher
from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images


def convert_inputs(
    teacher: TeacherLike, images: ImagesLike | None
) -> tuple[Teacher, ImageSet | None]:
    """Returns the teacher for images in [0, 1], and the images as an image set.

    Args:
        teacher: A teacher, or a torch module that takes the images as they are.
        images: Images without or with labels; None without images.

    Raises:
        TypeError: If the type of the teacher or the images is not supported.
    """
    image_set = None if images is None else _image_set(images)
    return takes_unit_images(as_teacher(teacher, image_set)), image_set


def check_images(images: ImageSet, teacher: Teacher) -> ImageSet:
    """Returns the images in the teacher's numbering of the classes, after checks.

    Raises:
        ValueError: If the shape, a value or a class of an image does not fit the teacher.
    """
    if images.image_shape != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected shape {tuple(teacher.image_shape)}, which the teacher takes, got "
            f"{images.image_shape} in {images.name}"
        )
    images.check()
    return matched(images, teacher)


def _image_set(images: ImagesLike) -> ImageSet:
    converted = as_images(images)
    if isinstance(converted, ImageSet):
        return converted
    array = getattr(converted, "numpy", None)
    if array is None:
        raise TypeError(
            f"images: expected an image set, an array or a data set, got {type(images).__name__}"
        )
    return ImageSet.from_arrays(array(), name="images")
