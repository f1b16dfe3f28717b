"""Collects the answers of a distillation: the images, in rounds, or pseudo samples."""
