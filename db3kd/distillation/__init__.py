"""Trains students on the decisions and soft labels of a teacher.

`train_student` trains on `Labels`, and `choose_scale` chooses the scale of their soft labels.
`train_batches` trains on the batches of any source. `evaluate` and `agreement` measure a network.
`make_surrogate` trains a network that guides a boundary search, and `compare_methods` compares
ways to train a student.
"""

from db3kd.distillation.augmented_decisions import AugmentedDecisions
from db3kd.distillation.augmented_images import AugmentedImages
from db3kd.distillation.early_stopping import EarlyStopping, HeldOutAgreement
from db3kd.distillation.evaluation import agreement, evaluate
from db3kd.distillation.labelled_images import LabelledImages
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.methods import MethodResult, TrainingMethod, compare_methods
from db3kd.distillation.row_batches import RowBatches
from db3kd.distillation.scale import choose_scale
from db3kd.distillation.scale_choice import ScaleChoice
from db3kd.distillation.student import train_classifier, train_student
from db3kd.distillation.surrogate_files import PreparedSurrogate, prepare_surrogate
from db3kd.distillation.surrogate_settings import SurrogateSettings, TrainedSurrogate
from db3kd.distillation.surrogate_training import make_surrogate
from db3kd.distillation.train_settings import TrainSettings
from db3kd.distillation.training_callbacks import TrainingCallback, TrainingState
from db3kd.distillation.training_checkpoint import Checkpoint
from db3kd.distillation.training_loop import BatchSource, train_batches
from db3kd.distillation.training_tracker import TrackerCallback
from db3kd.distillation.white_box import train_white_box

__all__ = [
    "AugmentedDecisions",
    "AugmentedImages",
    "BatchSource",
    "Checkpoint",
    "EarlyStopping",
    "HeldOutAgreement",
    "KDLoss",
    "LabelledImages",
    "MethodResult",
    "PreparedSurrogate",
    "RowBatches",
    "ScaleChoice",
    "SurrogateSettings",
    "TrackerCallback",
    "TrainSettings",
    "TrainedSurrogate",
    "TrainingCallback",
    "TrainingMethod",
    "TrainingState",
    "agreement",
    "choose_scale",
    "compare_methods",
    "evaluate",
    "make_surrogate",
    "prepare_surrogate",
    "train_batches",
    "train_classifier",
    "train_student",
    "train_white_box",
]
