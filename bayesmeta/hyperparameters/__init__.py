"""What families learn from tasks: hyperparameters, how sure they are, kinds of tasks, features of tasks."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "FeaturePrior",
    "Hierarchical",
    "Hyperparameter",
    "Hyperparameters",
    "Hyperposterior",
    "Kinds",
    "LimitWarning",
    "StartsDisagreeWarning",
    "fit_by_mode",
    "fit_kinds",
    "fit_with_features",
    "laplace",
    "most_probable",
    "weighted_draws",
]

if TYPE_CHECKING:
    from bayesmeta.hyperparameters.feature_prior import FeaturePrior, fit_with_features
    from bayesmeta.hyperparameters.hyperposterior import Hyperposterior, laplace, weighted_draws
    from bayesmeta.hyperparameters.kinds import Kinds, StartsDisagreeWarning, fit_kinds
    from bayesmeta.hyperparameters.mode import LimitWarning, fit_by_mode, most_probable
    from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameter, Hyperparameters
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "FeaturePrior": "feature_prior",
            "Hierarchical": "vector",
            "Hyperparameter": "vector",
            "Hyperparameters": "vector",
            "Hyperposterior": "hyperposterior",
            "Kinds": "kinds",
            "LimitWarning": "mode",
            "StartsDisagreeWarning": "kinds",
            "fit_by_mode": "mode",
            "fit_kinds": "kinds",
            "fit_with_features": "feature_prior",
            "laplace": "hyperposterior",
            "most_probable": "mode",
            "weighted_draws": "hyperposterior",
        },
    )
