"""Pseudo samples: images for a teacher of which nothing is known but its decisions."""
