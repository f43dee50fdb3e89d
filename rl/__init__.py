"""The reinforcement-learning searcher: AutoLossGen's controller over any grammar."""

from rl.controller import Controller, Formulas
from rl.searcher import RLSearcher

__all__ = ["Controller", "Formulas", "RLSearcher"]
