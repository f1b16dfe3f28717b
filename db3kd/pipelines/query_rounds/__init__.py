"""Asks the teacher of a distillation: about images in rounds, or about pseudo samples."""
