"""Readers of image and table files, one module for each format."""
