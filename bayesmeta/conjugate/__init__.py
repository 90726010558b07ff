"""Families without inputs whose posteriors have a closed form."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "BernoulliFunctions",
    "BetaBernoulli",
    "CategoricalFunctions",
    "DirichletCategorical",
    "ExponentialFunctions",
    "GammaExponential",
    "GammaPoisson",
    "KnownVarianceFunctions",
    "MultivariateNormalFunctions",
    "NormalFunctions",
    "NormalInverseGamma",
    "NormalInverseWishart",
    "NormalKnownVariance",
    "RateFunctions",
    "one_hot",
]

if TYPE_CHECKING:
    from bayesmeta.conjugate.bernoulli import BernoulliFunctions, BetaBernoulli
    from bayesmeta.conjugate.categorical import CategoricalFunctions, DirichletCategorical, one_hot
    from bayesmeta.conjugate.normal import NormalFunctions, NormalInverseGamma
    from bayesmeta.conjugate.normal_inverse_wishart import MultivariateNormalFunctions, NormalInverseWishart
    from bayesmeta.conjugate.normal_known_variance import KnownVarianceFunctions, NormalKnownVariance
    from bayesmeta.conjugate.rates import ExponentialFunctions, GammaExponential, GammaPoisson, RateFunctions
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "BernoulliFunctions": "bernoulli",
            "BetaBernoulli": "bernoulli",
            "CategoricalFunctions": "categorical",
            "DirichletCategorical": "categorical",
            "ExponentialFunctions": "rates",
            "GammaExponential": "rates",
            "GammaPoisson": "rates",
            "KnownVarianceFunctions": "normal_known_variance",
            "MultivariateNormalFunctions": "normal_inverse_wishart",
            "NormalFunctions": "normal",
            "NormalInverseGamma": "normal",
            "NormalInverseWishart": "normal_inverse_wishart",
            "NormalKnownVariance": "normal_known_variance",
            "RateFunctions": "rates",
            "one_hot": "categorical",
        },
    )
