"""Any posterior as a model of BoTorch."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "MixtureLogExpectedImprovement",
    "MixturePosterior",
    "Paths",
    "Surrogate",
    "joint_of_each",
    "marginal_of_each",
    "thompson_points",
    "variances",
]

if TYPE_CHECKING:
    from bo.surrogate.mixture_acquisition import MixtureLogExpectedImprovement
    from bo.surrogate.mixture_posterior import MixturePosterior, joint_of_each, marginal_of_each, variances
    from bo.surrogate.model import Surrogate
    from bo.surrogate.paths import Paths
    from bo.surrogate.thompson import thompson_points
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "MixtureLogExpectedImprovement": "mixture_acquisition",
            "MixturePosterior": "mixture_posterior",
            "Paths": "paths",
            "Surrogate": "model",
            "joint_of_each": "mixture_posterior",
            "marginal_of_each": "mixture_posterior",
            "thompson_points": "thompson",
            "variances": "mixture_posterior",
        },
    )
