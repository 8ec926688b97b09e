"""Optimizers."""

from .muon_sgd import MuonSGD

__all__ = ['MuonSGD']
