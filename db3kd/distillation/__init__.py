"""Trains students on the decisions and soft labels of a teacher.

`train_student` trains on `Labels`, `choose_scale` chooses the scale of their soft labels, and
`evaluate` and `agreement` measure a network. `make_surrogate` trains a network that guides a
boundary search, and `compare_strategies` compares ways to train a student.
"""

from db3kd.distillation.augmented_decisions import (
    AugmentedDecisions,
    collect_augmented_decisions,
)
from db3kd.distillation.augmented_images import AugmentedImages
from db3kd.distillation.evaluation import agreement, evaluate
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.scale import ScaleChoice, choose_scale
from db3kd.distillation.strategies import Strategy, StrategyResult, compare_strategies
from db3kd.distillation.student import train_classifier, train_student
from db3kd.distillation.surrogate_files import write_surrogate
from db3kd.distillation.surrogate_settings import SurrogateSettings, TrainedSurrogate
from db3kd.distillation.surrogate_training import make_surrogate
from db3kd.distillation.training import TrainSettings

__all__ = [
    "AugmentedDecisions",
    "AugmentedImages",
    "KDLoss",
    "ScaleChoice",
    "Strategy",
    "StrategyResult",
    "SurrogateSettings",
    "TrainSettings",
    "TrainedSurrogate",
    "agreement",
    "choose_scale",
    "collect_augmented_decisions",
    "compare_strategies",
    "evaluate",
    "make_surrogate",
    "train_classifier",
    "train_student",
    "write_surrogate",
]
