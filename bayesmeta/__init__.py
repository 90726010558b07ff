"""bayesmeta: learn a prior from past tasks once, and use it everywhere a prior goes."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__version__ = "0.1.0"

__all__ = [
    "BetaBernoulli",
    "Data",
    "GaussianProcess",
    "Hyperposterior",
    "LinearGaussian",
    "LogisticGaussian",
    "Mixture",
    "NormalInverseGamma",
    "NormalInverseWishart",
    "PastFunctions",
    "PoissonExposureGaussian",
    "PoissonGaussian",
    "Statistics",
    "load",
    "save",
    "transfer_hypotheses",
    "trust",
]

if TYPE_CHECKING:
    from bayesmeta.conjugate import BetaBernoulli
    from bayesmeta.data import Data
    from bayesmeta.glm import LogisticGaussian, PoissonExposureGaussian, PoissonGaussian
    from bayesmeta.gp import GaussianProcess
    from bayesmeta.hierarchy import Mixture
    from bayesmeta.hyperposterior import Hyperposterior
    from bayesmeta.io import load, save
    from bayesmeta.linear import LinearGaussian
    from bayesmeta.niw import NormalInverseWishart
    from bayesmeta.normal import NormalInverseGamma
    from bayesmeta.past_functions import PastFunctions
    from bayesmeta.statistics import Statistics
    from bayesmeta.transfer import transfer_hypotheses, trust
else:
    __getattr__ = lazily(
        __name__,
        {
            "BetaBernoulli": "conjugate",
            "Data": "data",
            "GaussianProcess": "gp",
            "Hyperposterior": "hyperposterior",
            "LinearGaussian": "linear",
            "LogisticGaussian": "glm",
            "Mixture": "hierarchy",
            "NormalInverseGamma": "normal",
            "NormalInverseWishart": "niw",
            "PastFunctions": "past_functions",
            "PoissonExposureGaussian": "glm",
            "PoissonGaussian": "glm",
            "Statistics": "statistics",
            "load": "io",
            "save": "io",
            "transfer_hypotheses": "transfer",
            "trust": "transfer",
        },
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
