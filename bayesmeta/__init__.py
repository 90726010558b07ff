"""bayesmeta: learn a prior from past tasks once, and use it everywhere a prior goes."""

from bayesmeta.conjugate import BetaBernoulli
from bayesmeta.data import Data
from bayesmeta.io import load, save
from bayesmeta.linear import LinearGaussian
from bayesmeta.niw import NormalInverseWishart
from bayesmeta.normal import NormalInverseGamma
from bayesmeta.statistics import Statistics

__version__ = "0.1.0"

__all__ = [
    "BetaBernoulli",
    "Data",
    "LinearGaussian",
    "NormalInverseGamma",
    "NormalInverseWishart",
    "Statistics",
    "load",
    "save",
]
