"""The families that must pass the laws of `bayesmeta.testing`: adding one is one entry of FAMILIES."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import bayesmeta as bm
from bayesmeta import Data, testing
from bayesmeta.networks.features import ReluNetwork, TanhFeatures
from bayesmeta.protocol import Predictive
from bayesmeta.random import rand, randn
from bo.priors.shared_configurations import PastValues, SharedConfigurations
from tests.seeds import SHIFT, seed

__all__ = ["F64", "FAMILIES", "Family", "OverArms", "every_family", "having", "initial", "seed"]

F64 = torch.zeros((), dtype=torch.float64)


@dataclass(frozen=True)
class Family(testing.Family):
    """Whose seeds follow the shift of the tests."""

    shift: int = SHIFT


def _spd(d: int, number: int) -> Tensor:
    a = randn((d, d), like=F64, generator=seed(number))
    return a @ a.mT + d * torch.eye(d, dtype=torch.float64)


def relative_error(found: Tensor, truth: Tensor) -> Tensor:
    """Of a positive definite matrix, in coordinates in which the truth is the identity: the same at any truth."""
    root = torch.linalg.cholesky(truth)
    return torch.linalg.solve(root, torch.linalg.solve(root, found - truth).mT)


def _linear() -> Family:
    prior = bm.LinearGaussian(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), _spd(3, 1), F64 + 0.3)
    return Family(prior, 3, lambda n, g: randn((n,), like=F64, generator=g), farthest_x=1e4, farthest_y=1e8)


def _linear_with_roles() -> Family:
    """Two weights that vary and one that tasks share; an offset, and rows with weights."""
    columns = bm.Columns(5, shared=(3,), offset=0, weight=4)
    loc, precision = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), _spd(3, 1)
    precision[2], precision[:, 2] = 0.0, 0.0
    precision[2, 2] = 1e16
    prior = bm.LinearGaussian(loc, precision, F64 + 0.3, columns=columns)
    return Family(prior, 5, lambda n, g: randn((n,), like=F64, generator=g), rtol=1e-9)


def _linear_known_noise() -> Family:
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64)
    prior = bm.LinearGaussian(loc, _spd(2, 1), F64 + 1.0, columns=bm.Columns(3, noise_var=1))
    return Family(prior, 3, lambda n, g: randn((n,), like=F64, generator=g))


def _linear_normal_inverse_gamma_with_roles() -> Family:
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64)
    columns = bm.Columns(4, offset=3, weight=1)
    prior = bm.LinearNormalInverseGamma(loc, _spd(2, 1), F64 + 5.0, F64 + 3.0, columns=columns)
    return Family(prior, 4, lambda n, g: randn((n,), like=F64, generator=g))


def _beta_bernoulli() -> Family:
    return Family(
        bm.BetaBernoulli(F64 + 1.5, F64 + 2.5), 0, lambda n, g: (rand((n,), like=F64, generator=g) < 0.3).double()
    )


def _normal_inverse_gamma() -> Family:
    prior = bm.NormalInverseGamma(F64 - 0.5, F64 + 0.7, F64 + 4.0, F64 + 3.0)
    return Family(prior, 0, lambda n, g: randn((n,), like=F64, generator=g))


def _normal_inverse_wishart() -> Family:
    prior = bm.NormalInverseWishart(
        torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), F64 + 0.7, F64 + 9.0, _spd(3, 2)
    )
    return Family(prior, 0, lambda n, g: randn((n, 3), like=F64, generator=g))


def _gaussian_process() -> Family:
    points = rand((6, 2), like=F64, generator=seed(3))
    weights = randn((6, 3), like=F64, generator=seed(4))
    past = bm.PastFunctions(points, torch.tensor([0.7, 0.4], dtype=torch.float64), weights[:, 0], weights[:, 1:])
    prior = bm.GaussianProcess(
        torch.tensor([0.5, 0.8], dtype=torch.float64), F64 + 0.6, F64 + 0.2, F64 + 0.3, F64 + 0.5, F64 + 1.5, past
    )
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000)


def _shared_configurations() -> Family:
    points = rand((9, 2), like=F64, generator=seed(3))
    values = randn((9, 3), like=F64, generator=seed(4))
    lengthscale = torch.tensor([0.5, 0.8], dtype=torch.float64)
    past = PastValues(points, lengthscale, values[:, 0], values[:, 1:])
    prior = SharedConfigurations(lengthscale, F64 + 0.6, F64 + 0.2, F64 + 0.3, F64 + 0.5, past=past)
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000)


def _logistic() -> Family:
    prior = bm.LogisticGaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), _spd(2, 5))
    return Family(prior, 2, lambda n, g: (rand((n,), like=F64, generator=g) < 0.4).double(), evidence_rtol=1e-3)


def _poisson() -> Family:
    prior = bm.PoissonGaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), _spd(2, 6))
    return Family(prior, 2, lambda n, g: (4.0 * rand((n,), like=F64, generator=g)).floor(), evidence_rtol=3e-3)


def _poisson_exposure() -> Family:
    prior = bm.PoissonExposureGaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), _spd(2, 6))
    return Family(prior, 3, lambda n, g: (4.0 * rand((n,), like=F64, generator=g)).floor(), evidence_rtol=3e-3)


def _mixture() -> Family:
    processes = replace(_gaussian_process().prior, past_weight=torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64))
    prior = bm.Mixture(processes, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log())
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=1000)


def _nested_mixture() -> Family:
    """As the hypotheses of transfer: structures share no axis with scales until they meet."""
    processes = replace(
        _gaussian_process().prior,
        past_weight=torch.tensor([[0.0], [1.0]], dtype=torch.float64),
        scale=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64),
    )
    prior = bm.Mixture.uniform(bm.Mixture.uniform(processes))
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=1500)


def _dirichlet_categorical() -> Family:
    prior = bm.DirichletCategorical(torch.tensor([1.5, 0.5, 2.5], dtype=torch.float64))
    return Family(prior, 0, lambda n, g: bm.one_hot(torch.randint(3, (n,), generator=g), 3))


def _counts(n: int, generator: Generator) -> Tensor:
    return (6.0 * rand((n,), like=F64, generator=generator)).floor()


def _gamma_poisson(num_inputs: int) -> Family:
    return Family(bm.GammaPoisson(F64 + 3.5, F64 + 1.5), num_inputs, _counts)


def _gamma_exponential() -> Family:
    # shape above four: the Monte Carlo laws compare variances, whose error must be finite
    prior = bm.GammaExponential(F64 + 6.5, F64 + 2.0)
    return Family(prior, 0, lambda n, g: 2.0 * rand((n,), like=F64, generator=g))


def _normal_known_variance(num_inputs: int) -> Family:
    prior = bm.NormalKnownVariance(F64 - 0.5, F64 + 1.3, F64 + 0.6)
    return Family(prior, num_inputs, lambda n, g: randn((n,), like=F64, generator=g))


def _linear_normal_inverse_gamma() -> Family:
    loc = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    prior = bm.LinearNormalInverseGamma(loc, _spd(3, 1), F64 + 5.0, F64 + 3.0)
    return Family(prior, 3, lambda n, g: randn((n,), like=F64, generator=g), farthest_x=1e4, farthest_y=1e8)


def _matrix_normal_inverse_wishart() -> Family:
    loc = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.0]], dtype=torch.float64)
    prior = bm.MatrixNormalInverseWishart(loc, _spd(3, 1), F64 + 9.0, _spd(2, 2))
    return Family(prior, 3, lambda n, g: randn((n, 2), like=F64, generator=g), farthest_x=1e4, farthest_y=1e8)


@dataclass(frozen=True)
class OverArms(Family):
    """Inputs are the index of an arm."""

    def draw_x(self, n: int, generator: Generator) -> Tensor:
        return torch.randint(self.prior.num_arms, (n, 1), generator=generator).double()


def _correlated_arms() -> Family:
    loc = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    prior = bm.CorrelatedArms(loc, torch.linalg.cholesky(_spd(3, 1)), F64 + 0.3)
    return OverArms(prior, 1, lambda n, g: randn((n,), like=F64, generator=g))


def _diffusion(**options: Any) -> Family:
    """Guesses that are not linear; its evidence is an estimate, so that steps add up to it in part."""
    loc = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    arms = bm.CorrelatedArms(loc, torch.linalg.cholesky(_spd(3, 1)), F64 + 0.3)
    rows = Data.of(
        torch.arange(3.0, dtype=torch.float64).expand(2, 3)[..., None], torch.zeros(2, 3, dtype=torch.float64)
    )
    start = bm.DiffusionPrior.initial(rows, width=8, num_layers=1, num_levels=4, num_particles=200, **options)
    prior = replace(start, arms=arms, gates=torch.full_like(start.gates, 0.5), network=moved(start.network, 10))
    return OverArms(prior, 1, lambda n, g: randn((n,), like=F64, generator=g), evidence_rtol=0.1)


def _diffusion_regression(y: str, draw_y: Any, evidence_rtol: float) -> Family:
    rows = Data.of(randn((20, 2), like=F64, generator=seed(7)), draw_y(20, seed(8)))
    num = 1600 if y == "normal" else 400  # rows of normal noise may lie where few particles are
    start = bm.DiffusionRegression.initial(rows, y=y, width=8, num_layers=1, num_levels=4, num_particles=num)
    loc, precision = torch.tensor([0.5, -1.0], dtype=torch.float64), _spd(2, 5)
    weights: Any = (
        bm.LinearGaussian(loc, precision, F64 + 0.3) if y == "normal" else type(start.weights)(loc, precision)
    )
    gates = torch.full_like(start.gates, 0.5)
    prior = replace(start, weights=weights, gates=gates, network=moved(start.network, 10))
    return Family(prior, 2, draw_y, evidence_rtol=evidence_rtol)


def _learned_features() -> Family:
    g = seed(5)
    weight, bias = randn((4, 2), like=F64, generator=g), randn((4,), like=F64, generator=g)
    centre, scale = torch.tensor([[0.4, 0.6], [0.3, 0.2]], dtype=torch.float64)
    linear = bm.LinearGaussian(randn((5,), like=F64, generator=g), _spd(5, 1), F64 + 0.3)
    prior = bm.LearnedFeatures(TanhFeatures(weight, bias, centre, scale), linear)
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g))


def _deep_kernel() -> Family:
    g = seed(6)
    first, rest, biases = (randn(shape, like=F64, generator=g) for shape in ((4, 2), (2, 4, 4), (3, 4)))
    centre, scale = torch.tensor([[0.4, 0.6], [0.3, 0.2]], dtype=torch.float64)
    process = bm.GaussianProcess(F64.new_full((4,), 8.0), F64 + 0.6, F64 + 0.2, F64 + 0.3)
    prior = bm.DeepKernel(ReluNetwork(first, rest, biases, centre, scale), process)
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000)


SMALL_TRANSFORMER = {"width": 8, "num_layers": 2, "num_heads": 2, "linear_width": 4, "hidden": 8}
SMALL_LATENT = {"width": 8, "num_layers": 1, "num_latent": 4}
SMALL_ATTENTIVE = {"width": 8, "num_layers": 1, "num_latent": 4, "num_attending": 1, "num_heads": 2}
SMALL_DIFFUSION = {"width": 8, "num_layers": 1, "num_levels": 4, "num_particles": 200}

# draws come one row after another, and agree with marginal and joint predictions as far as the network has learned to
CHAINS = frozenset({"draws_agree_with_predict", "draws_follow_the_marginal", "joint_agrees_with_draws"})


def _conditional_neural_process() -> Family:
    rows = Data.of(rand((20, 2), like=F64, generator=seed(7)), randn((20,), like=F64, generator=seed(8)))
    prior = bm.ConditionalNeuralProcess.initial(rows, width=8, num_layers=1)
    return Family(
        _with_drawn_weights(prior, 9), 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000, exempt=CHAINS
    )


def _transformer_neural_process() -> Family:
    return _small_transformer(bm.TransformerNeuralProcess, CHAINS, knows_stationarity=False)


def _causal_transformer_neural_process() -> Family:
    # a row looks at those before it alone
    return _small_transformer(bm.CausalTransformerNeuralProcess, CHAINS | {"order_of_rows_is_irrelevant"})


def _small_transformer(kind: Any, exempt: frozenset[str], **options: Any) -> Family:
    rows = Data.of(rand((20, 2), like=F64, generator=seed(7)), randn((20,), like=F64, generator=seed(8)))
    prior = _with_drawn_weights(kind.initial(rows, **SMALL_TRANSFORMER, **options), 9)
    return Family(prior, 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=500, exempt=exempt)


def _latent_neural_process() -> Family:
    rows = Data.of(rand((20, 2), like=F64, generator=seed(7)), randn((20,), like=F64, generator=seed(8)))
    prior = bm.LatentNeuralProcess.initial(rows, **SMALL_LATENT)
    # its posterior is what a network says and not Bayes' rule, so predictions one by one do not make up its evidence
    # and these are of a few fixed draws
    of_few = {"draws_agree_with_predict", "draws_follow_the_marginal", "joint_agrees_with_draws"}
    exempt = frozenset({"evidence_is_the_sum_of_one_step_predictions", *of_few})
    return Family(
        _with_drawn_weights(prior, 9), 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000, exempt=exempt
    )


def _attentive_neural_process() -> Family:
    rows = Data.of(rand((20, 2), like=F64, generator=seed(7)), randn((20,), like=F64, generator=seed(8)))
    prior = bm.AttentiveNeuralProcess.initial(rows, **SMALL_ATTENTIVE)
    # moments are of a few fixed draws, as those of the latent one; its evidence is that of a chain
    exempt = frozenset({"draws_agree_with_predict", "draws_follow_the_marginal", "joint_agrees_with_draws"})
    return Family(
        _with_drawn_weights(prior, 9), 2, lambda n, g: randn((n,), like=F64, generator=g), num_draws=2000, exempt=exempt
    )


def _with_drawn_weights(prior: Any, number: int) -> Any:
    """Every weight moved a little from where learning begins, so that each layer has a say."""
    if not prior.knows_functions:
        prior = replace(prior, head=replace(prior.head, noise_var=0.1 * prior.head.scale.square()))
    return replace(prior, network=moved(prior.network, number))


def moved(network: Any, number: int) -> Any:
    generator = seed(number)
    weights = network.weights.items()
    return network.with_weights(
        {name: value + 0.2 * randn(value.shape, like=value, generator=generator) for name, value in weights}
    )


FAMILIES: dict[str, Family] = {
    "conditional_neural_process": _conditional_neural_process(),
    "transformer_neural_process": _transformer_neural_process(),
    "causal_transformer_neural_process": _causal_transformer_neural_process(),
    "latent_neural_process": _latent_neural_process(),
    "attentive_neural_process": _attentive_neural_process(),
    "correlated_arms": _correlated_arms(),
    "diffusion": _diffusion(),
    "diffusion_on_a_grid": _diffusion(grid=torch.tensor([[0, 0], [1, 3], [4, 1]])),
    "diffusion_linear": _diffusion_regression("normal", lambda n, g: randn((n,), like=F64, generator=g), 0.1),
    "diffusion_logistic": _diffusion_regression(
        "bernoulli", lambda n, g: (rand((n,), like=F64, generator=g) < 0.4).double(), 0.1
    ),
    "diffusion_poisson": _diffusion_regression("poisson", lambda n, g: _counts(n, g), 0.1),
    "deep_kernel": _deep_kernel(),
    "matrix_normal_inverse_wishart": _matrix_normal_inverse_wishart(),
    "linear_normal_inverse_gamma": _linear_normal_inverse_gamma(),
    "normal_known_variance": _normal_known_variance(0),
    "normal_known_variances": _normal_known_variance(1),
    "dirichlet_categorical": _dirichlet_categorical(),
    "gamma_exponential": _gamma_exponential(),
    "gamma_poisson": _gamma_poisson(0),
    "gamma_poisson_exposure": _gamma_poisson(1),
    "beta_bernoulli": _beta_bernoulli(),
    "gaussian_process": _gaussian_process(),
    "learned_features": _learned_features(),
    "linear_gaussian": _linear(),
    "linear_gaussian_with_known_noise": _linear_known_noise(),
    "linear_gaussian_with_roles": _linear_with_roles(),
    "linear_normal_inverse_gamma_with_roles": _linear_normal_inverse_gamma_with_roles(),
    "logistic_gaussian": _logistic(),
    "mixture": _mixture(),
    "nested_mixture": _nested_mixture(),
    "normal_inverse_gamma": _normal_inverse_gamma(),
    "normal_inverse_wishart": _normal_inverse_wishart(),
    "poisson_exposure_gaussian": _poisson_exposure(),
    "poisson_gaussian": _poisson(),
    "shared_configurations": _shared_configurations(),
}


# of networks with which learning begins: those of `initial` itself take seconds for each fit, and take the same way
SIZES: dict[type, dict[str, Any]] = {
    bm.TransformerNeuralProcess: SMALL_TRANSFORMER,
    bm.CausalTransformerNeuralProcess: SMALL_TRANSFORMER,
    bm.LatentNeuralProcess: SMALL_LATENT,
    bm.AttentiveNeuralProcess: SMALL_ATTENTIVE,
    bm.DeepKernel: {"width": 4, "num_layers": 3},
    bm.DiffusionPrior: SMALL_DIFFUSION,
    bm.DiffusionRegression: SMALL_DIFFUSION,
}


def initial(family: Family, tasks: Data) -> Any:
    """Where a fit of this family begins that knows nothing but `tasks`; its network, if any, is small."""
    kind = type(family.prior)
    return kind.initial(tasks, **SIZES.get(kind, {}))


def having(capability: type) -> Any:
    """Decorator of a test that is asked of all families with a capability."""
    able = {name: family for name, family in FAMILIES.items() if isinstance(family.prior, capability)}
    return pytest.mark.parametrize("family", able.values(), ids=able.keys())


every_family = having(Predictive)
