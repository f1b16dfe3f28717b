"""Pseudo samples: images for a teacher of which nothing is known but its decisions."""

from db3kd.synthesis.moves import Moves
from db3kd.synthesis.sample_run import write_pseudo_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import make_starts
from db3kd.synthesis.synthesis import synthesize

__all__ = ["Moves", "SynthesisSettings", "make_starts", "synthesize", "write_pseudo_samples"]
