"""Bayesian optimisation that starts from past studies: an Optuna sampler, and any posterior as a BoTorch model."""

from bo.acquisition import expected_improvement
from bo.prior import TuningPrior
from bo.sampler import MetaSampler
from bo.scores import normal_scores
from bo.space import SearchSpace
from bo.surrogate import Surrogate

__all__ = ["MetaSampler", "SearchSpace", "Surrogate", "TuningPrior", "expected_improvement", "normal_scores"]
