# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exact posteriors of many data sets
#
# One model, hundreds of data sets, and a posterior for each: `bayesmeta.mcmc.sample` draws from all of them at once.
# Draws are corrected by Metropolis-Hastings and checked, data set by data set. Here are posteriors beside exact ones:
# skew ones after few rows, and ones with two modes, where one check alone would be fooled.

# %%
import warnings

import matplotlib.pyplot as plt
import torch

from bayesmeta import Data, LogisticGaussian, mcmc
from bayesmeta.checks.calibration import sbc_ecdf
from bayesmeta.mcmc.exactness import ranks

torch.set_num_threads(1)
GREEN, RED, LIGHT = "#0b6e4f", "#b5482f", "#f2d9a0"


def seed(number):
    return torch.Generator().manual_seed(number)


# %% [markdown]
# ## Few rows: posteriors that are skew
#
# A dose is given six times, and a patient answers or does not. The prior of intercept and slope is wide. Laplace's
# normal about the mode (red) is symmetric, where the posterior (black, on a grid) has a long tail.

# %%
patients, doses = 300, torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
truth = torch.tensor([0.0, 2.0]) + torch.tensor([1.0, 1.5]) * torch.randn(patients, 2, generator=seed(0))
x = torch.stack([torch.ones(6).double(), doses], -1).expand(patients, 6, 2)
chance = (x @ truth.double()[..., None])[..., 0].sigmoid()
answers = (torch.rand(patients, 6, generator=seed(1), dtype=torch.float64) < chance).double()

prior = LogisticGaussian(torch.zeros(2).double(), torch.eye(2).double() / 9.0)
posterior = prior.condition(Data.of(x, answers))
exact = posterior.exact(generator=seed(2))
print(exact.draws)

# %%
axis = torch.linspace(-12.0, 14.0, 261, dtype=torch.float64)
points = torch.cartesian_prod(torch.linspace(-10.0, 10.0, 161, dtype=torch.float64), axis)
density = posterior[:3].log_prob(points[:, None].expand(-1, 3, 2)).exp().reshape(161, 261, 3).sum(0) * (20.0 / 160.0)

figure, panels = plt.subplots(1, 3, figsize=(10, 2.6), sharey=True, layout="constrained")
for i, panel in enumerate(panels):
    slope = exact.weights[:, i, 1]
    panel.hist(slope.numpy(), bins=60, density=True, color=LIGHT, label="draws")
    panel.plot(axis, density[:, i], color="black", lw=1.2, label="exact")
    variance = posterior.precision[i].inverse()[1, 1]
    normal = torch.distributions.Normal(posterior.loc[i, 1], variance.sqrt())
    panel.plot(axis, normal.log_prob(axis).exp(), color=RED, lw=1.2, ls="--", label="Laplace")
    panel.set(title=f"answers {''.join(str(int(a)) for a in answers[i])}", xlabel="slope", xlim=(-8, 12))
panels[0].legend(frameon=False)
plt.show()

# %% [markdown]
# ## Two modes: what one check does not see
#
# Rows say what the square of a number is, and little of its sign. Metropolis-Hastings with a proposal about the mode
# that one climb found (`laplace_t` alone) stays there, and Pareto's k of its weights is small. Chains that start where
# other climbs ended do not agree with it, so the data set goes on to the rung of several starts.

# %%
sets, rows = 200, 5
centre = 1.0 + torch.rand(sets, 1, generator=seed(3), dtype=torch.float64)
squares = centre.square() + 0.5 * torch.randn(sets, rows, generator=seed(4), dtype=torch.float64)


def log_density(position, squares):
    """Squares of a number through noise, under a normal prior that is for positive ones, slightly."""
    z = position[..., 0]
    return -2.0 * (squares - z.square()[..., None]).square().sum(-1) - 0.5 * ((z - 0.3) / 1.5).square()


def reference(num_sets, scale):
    zero = torch.zeros(num_sets, 1, dtype=torch.float64)
    return mcmc.StudentMixture(zero, zero[..., None], scale * torch.ones(num_sets, 1, 1, 1).double())


targets = mcmc.Densities(log_density, reference(sets, 2.0), {"squares": squares})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says which data sets failed, and that is what is shown here
    one_rung = mcmc.sample(targets, ladder=["laplace_t"], progress=False, generator=seed(5))
ladder = mcmc.sample(targets, progress=False, generator=seed(6))
print(ladder)

# %%
grid = torch.linspace(-3.0, 3.0, 601, dtype=torch.float64)
exact_density = (log_density(grid[:, None, None].expand(-1, sets, 1), squares)).softmax(0)
positive = exact_density[grid > 0].sum(0)


def of_positive(draws):
    return (draws.position[..., 0] > 0).double().mean((0, 1))


figure, panels = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
panels[0].hist(ladder.position[..., 0, 0].flatten().numpy(), bins=80, density=True, color=LIGHT, label="ladder")
panels[0].plot(grid, exact_density[:, 0] / 0.01, color="black", lw=1.2, label="exact")
panels[0].set(xlabel="number", title="one data set")
panels[0].legend(frameon=False)
panels[1].plot([0.4, 0.8], [0.4, 0.8], color="black", lw=0.8)
panels[1].scatter(positive, of_positive(ladder), s=8, color=GREEN, label="ladder")
failed = ~one_rung.passed
panels[1].scatter(positive[failed], of_positive(one_rung)[failed], s=8, color=RED, label="one rung, failed its checks")
panels[1].set(xlabel="exact probability of a positive number", ylabel="share of draws", title="all data sets")
panels[1].legend(frameon=False, loc="center left")
plt.show()
print(
    f"k below .7: {(one_rung.chains.pareto_k < 0.7).double().mean():.0%}; passed: {one_rung.passed.double().mean():.0%}"
)

# %% [markdown]
# ## Without an exact answer
#
# If a number is drawn first and the rows after it, the number is one more draw of its posterior: its ranks among draws
# are uniform. The band holds all of the line for 95% of uniform ranks.

# %%
many = 1000
number = 0.3 + 1.5 * torch.randn(many, 1, generator=seed(7), dtype=torch.float64)
again = number.square() + 0.5 * torch.randn(many, rows, generator=seed(8), dtype=torch.float64)
simulated = mcmc.Densities(log_density, reference(many, 2.0), {"squares": again})
draws = mcmc.sample(simulated, num_draws=300, progress=False, generator=seed(9))
check = sbc_ecdf(ranks(draws.position, number)[:, 0], 99)
print(check)

figure, panel = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
panel.fill_between(check.uniform, check.lower - check.uniform, check.upper - check.uniform, color=LIGHT, step="post")
panel.step(check.uniform, check.ecdf - check.uniform, color=GREEN, where="post")
panel.set(xlabel="rank / 99", ylabel="share below, less that of uniform ranks", title="ranks of the truth")
plt.show()
