"""Makes pseudo samples: images for a teacher whose training data is not available.

`synthesize` sends random images to a teacher, keeps some of each class and, if the settings ask for
it, moves them away from the decision boundary. With `out=` it does so in a run folder that can be
resumed. `make_starts` draws the random images alone.
"""

from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import STARTS, Starts, make_starts
from db3kd.synthesis.synthesize_images import synthesize

__all__ = [
    "STARTS",
    "AcquisitionSettings",
    "Moves",
    "Starts",
    "SynthesisSettings",
    "make_starts",
    "synthesize",
]
