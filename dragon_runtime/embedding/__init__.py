"""Texts to unit vectors, one file per kind of model."""
