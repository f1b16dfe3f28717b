"""Trains networks, and measures how well they match labels and a teacher.

`train_student` trains on `Labels`, `train_classifier` on classes, and `train_batches` on the
batches of any source. `evaluate` and `agreement` measure a network.
"""

from db3kd.training.callbacks import TrainingCallback, TrainingState
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.early_stopping import EarlyStopping, HeldOutAgreement
from db3kd.training.evaluation import agreement, evaluate, predict
from db3kd.training.labelled_images import LabelledImages
from db3kd.training.loop import BatchSource, train_batches
from db3kd.training.loss import KDLoss
from db3kd.training.row_batches import RowBatches
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier, train_student
from db3kd.training.tracker import TrackerCallback

__all__ = [
    "BatchSource",
    "Checkpoint",
    "EarlyStopping",
    "HeldOutAgreement",
    "KDLoss",
    "LabelledImages",
    "RowBatches",
    "TrackerCallback",
    "TrainSettings",
    "TrainingCallback",
    "TrainingState",
    "agreement",
    "evaluate",
    "predict",
    "train_batches",
    "train_classifier",
    "train_student",
]
