"""Accuracy by group and by class."""
