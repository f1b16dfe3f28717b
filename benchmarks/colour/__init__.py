"""Colour data sets of 32x32 images, made from Debian packages that any machine can install."""
