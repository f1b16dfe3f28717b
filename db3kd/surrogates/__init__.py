"""Surrogates: networks that learn a teacher's decisions, and guide a boundary search.

`make_surrogate` trains one, and `prepare_surrogate` prepares one that is written to a file.
"""

from db3kd.surrogates.augmented_decisions import AugmentedDecisions
from db3kd.surrogates.files import PreparedSurrogate, prepare_surrogate
from db3kd.surrogates.settings import SurrogateSettings, TrainedSurrogate
from db3kd.surrogates.training import make_surrogate

__all__ = [
    "AugmentedDecisions",
    "PreparedSurrogate",
    "SurrogateSettings",
    "TrainedSurrogate",
    "make_surrogate",
    "prepare_surrogate",
]
