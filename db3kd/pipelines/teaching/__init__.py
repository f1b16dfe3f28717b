"""Trains the proxies and the student of a distillation, and estimates how long that takes."""
