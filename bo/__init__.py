"""Bayesian optimisation that starts from past studies: an Optuna sampler, and any posterior as a BoTorch model."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Between",
    "MetaSampler",
    "MixedColumnWarning",
    "MixtureLogExpectedImprovement",
    "NoSuggestionWarning",
    "RankingWeightedEnsemble",
    "SearchSpace",
    "SharedConfigurations",
    "SimulatedStudies",
    "Surrogate",
    "TuningPrior",
    "UnlikePastWarning",
    "expected_improvement",
    "fit_family",
    "fit_of",
    "fit_rgpe",
    "normal_scores",
    "parameter_importance",
    "plot_importance",
    "plot_prior_surface",
    "plot_resemblance",
    "resemblance",
    "thompson_points",
]

if TYPE_CHECKING:
    from bo.acquisition.improvement import expected_improvement
    from bo.insight.importance import parameter_importance
    from bo.insight.plots import plot_importance, plot_prior_surface, plot_resemblance
    from bo.insight.resemblance import resemblance
    from bo.past_tasks.scores import normal_scores
    from bo.priors.families import fit_family, fit_of
    from bo.priors.rgpe import RankingWeightedEnsemble, fit_rgpe
    from bo.priors.shared_configurations import SharedConfigurations
    from bo.priors.simulated_studies import SimulatedStudies
    from bo.priors.tuning_prior import TuningPrior
    from bo.samplers.meta import MetaSampler, UnlikePastWarning
    from bo.samplers.point_sampler import NoSuggestionWarning
    from bo.space.conditions import Between
    from bo.space.inference import MixedColumnWarning
    from bo.space.search_space import SearchSpace
    from bo.surrogate.mixture_acquisition import MixtureLogExpectedImprovement
    from bo.surrogate.model import Surrogate
    from bo.surrogate.thompson import thompson_points
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Between": "space.conditions",
            "MetaSampler": "samplers.meta",
            "MixedColumnWarning": "space.inference",
            "MixtureLogExpectedImprovement": "surrogate.mixture_acquisition",
            "NoSuggestionWarning": "samplers.point_sampler",
            "RankingWeightedEnsemble": "priors.rgpe",
            "SearchSpace": "space.search_space",
            "SharedConfigurations": "priors.shared_configurations",
            "SimulatedStudies": "priors.simulated_studies",
            "Surrogate": "surrogate.model",
            "TuningPrior": "priors.tuning_prior",
            "UnlikePastWarning": "samplers.meta",
            "expected_improvement": "acquisition.improvement",
            "fit_family": "priors.families",
            "fit_of": "priors.families",
            "fit_rgpe": "priors.rgpe",
            "normal_scores": "past_tasks.scores",
            "parameter_importance": "insight.importance",
            "plot_importance": "insight.plots",
            "plot_prior_surface": "insight.plots",
            "plot_resemblance": "insight.plots",
            "resemblance": "insight.resemblance",
            "thompson_points": "surrogate.thompson",
        },
    )
