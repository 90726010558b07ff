"""bayesmeta: learn a prior from past tasks once, and use it everywhere a prior goes."""

from bayesmeta.data import Data
from bayesmeta.io import load, save
from bayesmeta.linear import LinearGaussian
from bayesmeta.statistics import Statistics

__version__ = "0.1.0"

__all__ = ["Data", "LinearGaussian", "Statistics", "load", "save"]
