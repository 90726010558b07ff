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
# # A network as a prior, beside the exact answer
#
# A neural process is a network that was trained on many tasks to predict some rows of a task from others. How far is
# it from what could be known? Where tasks are draws of a Gaussian process whose lengthscale and scale vary from task
# to task, that can be computed: exact Bayes integrates both.
#
# The network is a `TransformerNeuralProcess`. It was trained for 23,000 steps, 20 to 40 minutes of one core, on tasks
# with a lengthscale uniform on (.1, .6), a scale uniform on (.1, 1), and noise of standard deviation .02:
# `python -m benchmarks.neural_processes --budget full --methods transformer` trains it again.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bayesmeta
from bayesmeta import Data, GaussianProcess, Mixture

torch.set_num_threads(1)
GREEN, GREY = "#0b6e4f", "#8a8a8a"
NOISE_VAR = 0.02**2
folders = Path(), Path("notebooks"), Path(bayesmeta.__file__).parents[1] / "notebooks"
path = next(folder / "rbf_network.safetensors" for folder in folders if (folder / "rbf_network.safetensors").exists())
network = bayesmeta.load(path).to(torch.float64)
print(network)

# %% [markdown]
# Exact Bayes is a mixture of Gaussian processes here, one for each point of a grid over lengthscale and scale. Each
# row that is seen moves the weights of the mixture, and each of its processes.

# %%
lengthscale, scale = torch.meshgrid(
    0.1 + 0.5 * (torch.arange(24).double() + 0.5) / 24,
    0.1 + 0.9 * (torch.arange(16).double() + 0.5) / 16,
    indexing="ij",
)


def exact_prior(lengthscale, scale):
    """One process for each pair."""
    nothing = torch.zeros_like(scale)
    return GaussianProcess(lengthscale[:, None], scale.square(), nothing + NOISE_VAR, nothing)


exact = Mixture.uniform(exact_prior(lengthscale.flatten(), scale.flatten()))
print(exact)

# %% [markdown]
# ## Before any row
#
# Draws of functions. Those of the network are made one point after another, each given those before it: it knows
# nothing of processes, and has learned what their functions look like.

# %%
grid = torch.linspace(-2, 2, 60).double()[:, None]
figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for axis, (name, prior) in zip(axes, {"exact": exact, "network": network}.items(), strict=True):
    with torch.no_grad():
        draws = prior.sample(4, generator=torch.Generator().manual_seed(1))(grid)
    axis.plot(grid[:, 0], draws.mT)
    axis.set(title=f"draws of the prior, {name}", xlabel="x")
axes[0].set_ylabel("f(x)")
plt.show()

# %% [markdown]
# ## As rows arrive
#
# One task, with a lengthscale of .25 and a scale of .7. Green is the network, grey the exact posterior: lines are
# means, bands and dashed lines hold 90% of the function's values at each point.

# %%
generator = torch.Generator().manual_seed(3)
truth = exact_prior(torch.tensor([0.25]).double(), torch.tensor([0.7]).double())
x = 4.0 * torch.rand(12, 1, generator=generator, dtype=torch.float64) - 2.0
f = truth.sample(1, generator=generator)(torch.cat([x, grid])).flatten()
task = Data.of(x, f[:12] + NOISE_VAR**0.5 * torch.randn(12, generator=generator, dtype=torch.float64))

figure, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True, layout="constrained")
for axis, num in zip(axes, (1, 4, 12), strict=True):
    known = task.rows(slice(0, num))
    with torch.no_grad():
        ours, theirs = (prior.condition(known).predict(grid) for prior in (network, exact))
    half = 1.645 * ours.stddev
    axis.fill_between(grid[:, 0], ours.mean - half, ours.mean + half, color=GREEN, alpha=0.2)
    axis.plot(grid[:, 0], ours.mean, color=GREEN, label="network")
    for sign in (-1.645, 1.645):
        axis.plot(grid[:, 0], theirs.mean + sign * theirs.stddev, "--", color=GREY, linewidth=0.8)
    axis.plot(grid[:, 0], theirs.mean, color=GREY, label="exact")
    axis.plot(known.x[:, 0], known.y, "k.")
    axis.set(title=f"after {num} row{'s' if num > 1 else ''}", xlabel="x")
axes[0].set_ylabel("y")
axes[0].legend()
plt.show()

# %% [markdown]
# ## How far apart they are
#
# Scores say it in nats: the log density of rows that were held back, under exact Bayes minus under the network, on
# tasks that neither has seen. Zero is the best that any learner can reach on average. With many rows close together
# small errors of the mean count for much, since the noise is small.

# %%
rows = (1, 3, 6, 12, 24, 40)
gaps, errors = [], []
for num in rows:
    with torch.no_grad():
        chosen = torch.randint(len(lengthscale.flatten()), (60,), generator=generator)
        processes = exact_prior(lengthscale.flatten()[chosen], scale.flatten()[chosen])
        x = 4.0 * torch.rand(60, num + 10, 1, generator=generator, dtype=torch.float64) - 2.0
        y = processes.sample(1, generator=generator)(x)[0]
        tasks = Data.of(x, y + NOISE_VAR**0.5 * torch.randn(y.shape, generator=generator, dtype=torch.float64))
        known, asked = tasks.rows(slice(0, num)), tasks.rows(slice(num, None))
        scores = []
        for prior in (exact, network):
            found = prior.condition(known).predict(asked.x)
            scores.append(torch.distributions.Normal(found.mean, found.stddev).log_prob(asked.y).mean(1))
        gap = scores[0] - scores[1]
    gaps.append(float(gap.mean()))
    errors.append(1.96 * float(gap.std()) / len(gap) ** 0.5)
    print(f"{num:2} rows: {gaps[-1]:.3f} ± {errors[-1]:.3f} nats behind exact Bayes")

figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.errorbar(rows, gaps, errors, marker="o", color=GREEN, capsize=3)
axis.axhline(0, color=GREY, linewidth=0.8)
axis.set(xlabel="rows that are known", ylabel="gap, nats per row", title="behind exact Bayes; bars are 95% intervals")
plt.show()

# %% [markdown]
# ## When to take which
#
# Here the Gaussian process is the better choice: it is exact, and needs no training. The network takes 20 minutes of
# training once, and then answers a task in half a millisecond without a grid, a fit or a kernel. It is for tasks that
# no family describes: see `docs/neural-processes.md` for how to train one on a simulator or on past tasks of your own.
