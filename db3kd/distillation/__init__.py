"""How a student learns a teacher's decisions and soft labels.

Answers, batches of them and of new images that proxies answer, the choice of the images to ask
about next, and the scale of soft labels, which `choose_scale` chooses for `Labels`.
"""

from db3kd.distillation.scale import choose_scale
from db3kd.distillation.scale_choice import ScaleChoice

__all__ = [
    "ScaleChoice",
    "choose_scale",
]
