"""How a student learns a teacher's decisions and soft labels.

Answers, batches of them and of new images that proxies answer, the choice of the images to ask
about next, and the scale of soft labels. `choose_scale` chooses the scale for `Labels`, and
`compare_methods` compares ways to train a student.
"""

from db3kd.distillation.methods import MethodResult, TrainingMethod, compare_methods
from db3kd.distillation.scale import choose_scale
from db3kd.distillation.scale_choice import ScaleChoice
from db3kd.distillation.white_box import train_white_box

__all__ = [
    "MethodResult",
    "ScaleChoice",
    "TrainingMethod",
    "choose_scale",
    "compare_methods",
    "train_white_box",
]
