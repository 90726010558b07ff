"""bayesmeta: learn a prior from past tasks once, and use it everywhere a prior goes."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__version__ = "0.1.0"

__all__ = [
    "AttentiveNeuralProcess",
    "BayesmetaWarning",
    "BetaBernoulli",
    "CausalTransformerNeuralProcess",
    "Columns",
    "ConditionalNeuralProcess",
    "CorrelatedArms",
    "Data",
    "DeepKernel",
    "DiffusionPrior",
    "DiffusionRegression",
    "DirichletCategorical",
    "FittedMixedModel",
    "GammaExponential",
    "GammaPoisson",
    "GaussianProcess",
    "Hyperposterior",
    "LatentNeuralProcess",
    "LearnedFeatures",
    "LimitWarning",
    "LinearGaussian",
    "LinearHyperposterior",
    "LinearNormalInverseGamma",
    "LogisticGaussian",
    "MatrixNormalInverseWishart",
    "MixedModel",
    "Mixture",
    "NeuralDiffusionProcess",
    "NormalInverseGamma",
    "NormalInverseWishart",
    "NormalKnownVariance",
    "NotFusedWarning",
    "PastFunctions",
    "PlacementWarning",
    "PoissonExposureGaussian",
    "PoissonGaussian",
    "StartsDisagreeWarning",
    "Statistics",
    "TransferHypotheses",
    "TransformerNeuralProcess",
    "arm_statistics",
    "compiled",
    "fit_kinds",
    "fit_with_features",
    "from_formula",
    "from_pyro",
    "load",
    "one_hot",
    "sample_posterior",
    "save",
    "transfer_hypotheses",
    "trust",
]

if TYPE_CHECKING:
    from bayesmeta.conjugate.bernoulli import BetaBernoulli
    from bayesmeta.conjugate.categorical import DirichletCategorical, one_hot
    from bayesmeta.conjugate.normal import NormalInverseGamma
    from bayesmeta.conjugate.normal_inverse_wishart import NormalInverseWishart
    from bayesmeta.conjugate.normal_known_variance import NormalKnownVariance
    from bayesmeta.conjugate.rates import GammaExponential, GammaPoisson
    from bayesmeta.data.columns import Columns
    from bayesmeta.data.rows import Data
    from bayesmeta.data.statistics import Statistics
    from bayesmeta.diffusion.featured.process import NeuralDiffusionProcess
    from bayesmeta.diffusion.prior import DiffusionPrior
    from bayesmeta.diffusion.regression import DiffusionRegression
    from bayesmeta.glm.logistic import LogisticGaussian
    from bayesmeta.glm.poisson import PoissonExposureGaussian, PoissonGaussian
    from bayesmeta.gp.past_functions import PastFunctions
    from bayesmeta.gp.process import GaussianProcess
    from bayesmeta.gp.transfer import TransferHypotheses, transfer_hypotheses, trust
    from bayesmeta.hyperparameters.feature_prior import fit_with_features
    from bayesmeta.hyperparameters.hyperposterior import Hyperposterior
    from bayesmeta.hyperparameters.kinds import StartsDisagreeWarning, fit_kinds
    from bayesmeta.io import load, save
    from bayesmeta.mcmc.full_bayes import sample_posterior
    from bayesmeta.mixed_models.model import FittedMixedModel, MixedModel, from_formula
    from bayesmeta.mixture import Mixture
    from bayesmeta.networks.deep_kernel import DeepKernel
    from bayesmeta.networks.learned_features import LearnedFeatures
    from bayesmeta.neural_processes.conditional import ConditionalNeuralProcess
    from bayesmeta.neural_processes.latent.attentive import AttentiveNeuralProcess
    from bayesmeta.neural_processes.latent.plain import LatentNeuralProcess
    from bayesmeta.neural_processes.transformer import CausalTransformerNeuralProcess, TransformerNeuralProcess
    from bayesmeta.numerics.fused import compiled
    from bayesmeta.pyro_models.model import from_pyro
    from bayesmeta.regression.arms_by_number import arm_statistics
    from bayesmeta.regression.correlated_arms import CorrelatedArms
    from bayesmeta.regression.linear import LinearGaussian
    from bayesmeta.regression.linear_hyperposterior import LinearHyperposterior
    from bayesmeta.regression.linear_unknown_noise import LinearNormalInverseGamma
    from bayesmeta.regression.matrix_normal import MatrixNormalInverseWishart
    from bayesmeta.warning_kinds import BayesmetaWarning, LimitWarning, NotFusedWarning, PlacementWarning
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "AttentiveNeuralProcess": "neural_processes.latent.attentive",
            "BayesmetaWarning": "warning_kinds",
            "BetaBernoulli": "conjugate.bernoulli",
            "Columns": "data.columns",
            "ConditionalNeuralProcess": "neural_processes.conditional",
            "CorrelatedArms": "regression.correlated_arms",
            "Data": "data.rows",
            "DeepKernel": "networks.deep_kernel",
            "DiffusionPrior": "diffusion.prior",
            "DiffusionRegression": "diffusion.regression",
            "DirichletCategorical": "conjugate.categorical",
            "FittedMixedModel": "mixed_models.model",
            "GammaExponential": "conjugate.rates",
            "GammaPoisson": "conjugate.rates",
            "GaussianProcess": "gp.process",
            "Hyperposterior": "hyperparameters.hyperposterior",
            "LatentNeuralProcess": "neural_processes.latent.plain",
            "LearnedFeatures": "networks.learned_features",
            "LimitWarning": "warning_kinds",
            "LinearGaussian": "regression.linear",
            "LinearHyperposterior": "regression.linear_hyperposterior",
            "LinearNormalInverseGamma": "regression.linear_unknown_noise",
            "LogisticGaussian": "glm.logistic",
            "MatrixNormalInverseWishart": "regression.matrix_normal",
            "MixedModel": "mixed_models.model",
            "Mixture": "mixture",
            "NeuralDiffusionProcess": "diffusion.featured.process",
            "NormalInverseGamma": "conjugate.normal",
            "NormalInverseWishart": "conjugate.normal_inverse_wishart",
            "NormalKnownVariance": "conjugate.normal_known_variance",
            "NotFusedWarning": "warning_kinds",
            "PastFunctions": "gp.past_functions",
            "PlacementWarning": "warning_kinds",
            "PoissonExposureGaussian": "glm.poisson",
            "PoissonGaussian": "glm.poisson",
            "StartsDisagreeWarning": "hyperparameters.kinds",
            "Statistics": "data.statistics",
            "arm_statistics": "regression.arms_by_number",
            "compiled": "numerics.fused",
            "fit_kinds": "hyperparameters.kinds",
            "fit_with_features": "hyperparameters.feature_prior",
            "from_formula": "mixed_models.model",
            "from_pyro": "pyro_models.model",
            "load": "io",
            "one_hot": "conjugate.categorical",
            "sample_posterior": "mcmc.full_bayes",
            "save": "io",
            "TransferHypotheses": "gp.transfer",
            "TransformerNeuralProcess": "neural_processes.transformer.plain",
            "CausalTransformerNeuralProcess": "neural_processes.transformer.causal",
            "transfer_hypotheses": "gp.transfer",
            "trust": "gp.transfer",
        },
    )
