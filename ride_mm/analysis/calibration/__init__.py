"""Calibrated scores and sets of labels."""
