"""Measures distances, trains proxies and student of a distillation, and estimates the time."""
