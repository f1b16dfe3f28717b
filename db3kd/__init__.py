"""Distil a student network from a teacher that answers with a class and nothing else."""
