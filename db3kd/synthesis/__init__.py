"""Pseudo samples, made where there are no images."""
