"""Training students: the loss, strategies, surrogates, evaluation."""

from db3kd.distillation.scale import choose_scale
from db3kd.distillation.student import KDLoss, agreement, evaluate, train_classifier, train_student
from db3kd.distillation.surrogate_training import SurrogateSettings, make_surrogate
from db3kd.distillation.training import TrainSettings

__all__ = [
    "KDLoss",
    "SurrogateSettings",
    "TrainSettings",
    "agreement",
    "choose_scale",
    "evaluate",
    "make_surrogate",
    "train_classifier",
    "train_student",
]
