"""Networks by name."""

from db3kd.models.networks import build_model, check_model, model_names

__all__ = ["build_model", "check_model", "model_names"]
