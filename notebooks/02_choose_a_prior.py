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
# # Choose a prior, and check it
#
# The data are seventy-one control groups of rats, and how many rats of each developed a tumour. The last group is the
# current one, with four of fourteen; what is its rate of tumours, given the other seventy groups?
#
# This notebook goes from such a table to a family, from the family to a learned prior, and then checks the prior.
#
# Data: Tarone, *The use of historical control information in testing for a trend in proportions* (1982), as table 5.1
# of Gelman et al., *Bayesian Data Analysis*, 3rd ed. (2013).

# %%
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy import stats

import bayesmeta
from bayesmeta import BetaBernoulli, Data, Hyperposterior, LimitWarning, fit_kinds, fit_with_features
from bayesmeta.checks.comparison import code_length, compare, psis_leave_one_task_out
from bayesmeta.checks.plots import plot_code_length, plot_comparison, plot_p_values
from bayesmeta.checks.predictive_checks import prior_predictive_p_values

torch.set_num_threads(1)
GREEN, RED, GREY = "#0b6e4f", "#c84630", "#8a8a8a"
COUNTS = """
0/20 0/20 0/20 0/20 0/20 0/20 0/20 0/19 0/19 0/19 0/19 0/18 0/18 0/17 1/20 1/20 1/20 1/20 1/19 1/19 1/18 1/18 2/25 2/24
2/23 2/20 2/20 2/20 2/20 2/20 2/20 1/10 5/49 2/19 5/46 3/27 2/17 7/49 7/47 3/20 3/20 2/13 9/48 10/50 4/20 4/20 4/20 4/20
4/20 4/20 4/20 10/48 4/19 4/19 4/19 5/22 11/46 12/49 5/20 5/20 6/23 5/19 6/22 6/20 6/20 6/20 16/52 15/46 15/47 9/24 4/14
"""
tumours, animals = torch.tensor([[int(n) for n in pair.split("/")] for pair in COUNTS.split()]).double().T
seed = torch.Generator().manual_seed(0)
tasks = Data.pad(  # rats in no particular order
    [(None, torch.randperm(n, generator=seed) < y) for y, n in zip(tumours, animals.int().tolist(), strict=True)]
)
past, current = tasks[:-1], tasks[-1]
print(f"{len(tasks.y)} groups, {int(animals.sum())} rats, {int(tumours.sum())} tumours")

# %% [markdown]
# ## What is a row?
#
# A row is a rat, with a tumour or without; a task is a group. Rows of yes or no, without inputs: that is
# `BetaBernoulli`, one probability per task, and a Beta distribution of how probabilities vary between tasks.
#
# If all groups shared one rate, 95% of them or more would fall in the grey band, and most of them near its middle.

# %%
rates, shared = tumours / animals, tumours.sum() / animals.sum()
sizes = torch.arange(8, 56)
low, high = (torch.as_tensor(stats.binom.ppf(q, sizes, shared)) / sizes for q in (0.025, 0.975))


def show_groups(ax):
    """Past groups by size and share, those that are alike as one circle, and the current one."""
    alike, times = torch.stack([animals, rates], -1)[:-1].unique(dim=0, return_counts=True)
    ax.scatter(
        *alike.T, s=14 * times, color="white", edgecolor="black", lw=0.9, zorder=2, label="past groups (area: count)"
    )
    ax.plot(animals[-1:], rates[-1:], "o", ms=6, color=RED, label="current group, 4 of 14")
    ax.axhline(shared, color=GREY, lw=1, ls="--", label="share in all groups together")
    ax.set(xlabel="rats in the group", ylabel="share of rats with a tumour", xlim=(8, 55), ylim=(-0.02, 0.55))
    ax.legend(frameon=False, fontsize="small", ncols=2, loc="upper left")


fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.fill_between(sizes, low, high, step="mid", color="0.5", alpha=0.2, lw=0, label="95% if all groups shared one rate")
show_groups(ax)
plt.show()
distance = (tumours - animals * shared).square() / (animals * shared * (1 - shared))
print(f"squared distances, in variances, add to {float(distance.sum()):.0f} where 70 +- 12 are expected of one rate")

# %% [markdown]
# No single group contradicts one shared rate: of seventy, three or four may be outside the band. All together they do:
# too many have no tumour or nearly a third, and too few are near the middle. An independent rate for each group is
# wrong too: it would estimate 0 from 0 of 20.
#
# ## Three answers
#
# *No pooling* estimates each rate from its group alone, *complete pooling* one rate from all groups. The learned prior
# (*partial pooling*) lies between: its two parameters add to about fifteen, so it counts as much as fifteen rats.

# %%
start = BetaBernoulli.initial(past)
prior = start.fit(past)
print(f"learned: Beta({prior.successes:.2f}, {prior.failures:.2f}) from {prior.learned_from.tasks} groups")


def interval(posterior, level=0.9):
    beta = stats.beta(posterior.successes, posterior.failures)
    return beta.mean(), beta.ppf(0.5 - level / 2), beta.ppf(0.5 + level / 2)


mean, low, high = interval(prior.condition(tasks))
fig, ax = plt.subplots(figsize=(5.2, 5), layout="constrained")
jitter = torch.rand(71, generator=torch.Generator().manual_seed(0)) - 0.5
spread = rates + 0.012 * jitter  # of groups that have the same share
ax.plot([0, 0.5], [0, 0.5], color=GREY, lw=1, label="no pooling")
ax.axhline(shared, color=GREY, lw=1, ls="--", label="complete pooling")
ax.vlines(spread, low, high, color=GREEN, lw=0.8, alpha=0.35)
ax.plot(spread, mean, "o", ms=4, color=GREEN, mfc="white", label="learned prior, 90% interval")
ax.plot(spread[-1:], mean[-1:], "o", ms=6, color=RED, label="current group, 4 of 14")
ax.set(xlabel="share of rats with a tumour", ylabel="rate of tumours in the group", xlim=(-0.015, 0.42), ylim=(0, 0.5))
ax.legend(frameon=False, fontsize="small", loc="upper left")
plt.show()
print("current group: {:.3f}, 90% from {:.3f} to {:.3f}".format(*(float(v[-1]) for v in (mean, low, high))))

# %% [markdown]
# ## Which answer predicts?
#
# The left figure leaves each group out, learns from the others, and gives the log probability of the group. The right
# one predicts the rats of a group one after another, each from those before it (code length): no pooling loses on the
# first rats, complete pooling on later ones, from the tenth or so.


# %%
def one_rate(rate):
    return BetaBernoulli(1e8 * rate, 1e8 * (1 - rate))


others = (tumours.sum() - tumours) / (animals.sum() - animals)  # the rate without the group that is left out
ignorant = BetaBernoulli(1.0, 1.0).to(torch.float64)
left_out = psis_leave_one_task_out(BetaBernoulli.initial(tasks), tasks, generator=seed)
scores = {
    "learned": left_out.log_evidence,
    "complete pooling": one_rate(others).log_evidence(tasks),
    "no pooling": ignorant.log_evidence(tasks),
}
lengths = {
    "learned": code_length(prior, tasks),
    "complete pooling": code_length(one_rate(shared), tasks),
    "no pooling": code_length(ignorant, tasks),
}
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained", width_ratios=(1.2, 1))
plot_comparison(compare(scores), ax=left)
plot_code_length({name: each[:, :20] for name, each in lengths.items()}, relative_to="learned", ax=right)
plt.show()
print(*compare(scores), sep="\n")

# %% [markdown]
# The bars of the scores overlap, because large groups take more nats than small ones whatever the prior. What counts
# are the differences, group by group: the learned prior is better than complete pooling by more than two of their
# standard errors, and than no pooling by far.
#
# ## Few tasks
#
# With five groups in place of seventy, the variation between them is hard to estimate, and *plain empirical Bayes*,
# which takes the most likely prior, often estimates none: one rate for all groups. `fit` does not, because its
# hyperparameters have weak priors of their own. `Hyperposterior` goes further (full Bayes): it averages predictions
# over the probable priors. The figure shows all three for five of the groups.

# %%
few = tasks[[27, 38, 32, 45, 47]]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", LimitWarning)
    plain = BetaBernoulli.initial(few).fit(few, hyperprior_weight=0)
print("plain empirical Bayes warns:", caught[0].message)
careful = BetaBernoulli.initial(few).fit(few)
sure = Hyperposterior.fit(BetaBernoulli.initial(few), few, generator=seed)

p = torch.linspace(0.001, 0.6, 600, dtype=torch.float64)
drawn = sure.sample(200, generator=seed)


def density(prior):
    return stats.beta(prior.successes[..., None], prior.failures[..., None]).pdf(p)


fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.plot(p, density(drawn)[::10].T, color=GREEN, lw=0.5, alpha=0.35)
ax.axvline(plain.successes / (plain.successes + plain.failures), color=RED, lw=2, label="five groups, plain: a spike")
ax.plot(p, density(careful), color=GREEN, lw=2, ls="--", label="five groups, fit")
ax.plot(p, density(drawn).mean(0), color=GREEN, lw=2, label="five groups, Hyperposterior (thin: its draws)")
ax.plot(p, density(prior), color="black", lw=2, label="seventy groups, fit")
ax.set(xlabel="rate of a new group", ylabel="density", xlim=(0, 0.6), ylim=(0, 12))
ax.legend(frameon=False, fontsize="small")
plt.show()

# %% [markdown]
# To see whether these five groups are an exception, divide seventy groups into fourteen sets of five, learn from each,
# and predict the number of tumours in every group outside the set: nine of ten should be inside their 90% intervals.
# (For a single rat, yes or no, an interval means little; so the sum is predicted.)


# %%
def num_tumours(data):
    return data.y.where(data.mask, 0.0).sum(-1)


covered, spikes = {"plain empirical Bayes": [], "fit": [], "Hyperposterior": []}, 0
for five in torch.randperm(71, generator=torch.Generator().manual_seed(1))[:70].reshape(14, 5):
    few, rest = tasks[five], tasks[[i for i in range(71) if i not in five]]
    start_few = BetaBernoulli.initial(few)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimitWarning)
        plain = start_few.fit(few, hyperprior_weight=0)
    spikes += int(plain.successes + plain.failures > 1e6)
    averaged = Hyperposterior.fit(start_few, few, generator=seed).marginal(generator=seed)
    for name, each in zip(covered, (plain, start_few.fit(few), averaged), strict=True):
        p_values = prior_predictive_p_values(each, rest, statistic=num_tumours, num_draws=199, generator=seed)
        covered[name].append((p_values > 0.1).double().mean())
print(f"plain empirical Bayes takes all groups for equal in {spikes} sets of 14")
for name, shares in covered.items():
    print(f"{name:>22}: 90% intervals cover {float(torch.stack(shares).mean()):.2f}")

# %% [markdown]
# They are not: intervals of plain empirical Bayes are too short on average, those of `fit` and `Hyperposterior` about
# right, the latter slightly wide.
#
# ## Is it the right family?
#
# The learned prior is the most probable Beta distribution; rates need not be Beta distributed. Two prior predictive
# checks: the p-value of each group under the prior, and the number of groups without any tumour, which the fit did not
# aim at, in data sets drawn from the prior.


# %%
def draw_none(chances):
    """How many groups are without a tumour, in data sets drawn at chances `(data sets, groups)`."""
    drawn = torch.binomial(animals.expand(len(chances), -1).contiguous(), chances, generator=seed)
    return (drawn == 0).sum(-1).double()


prior = BetaBernoulli.initial(tasks).fit(tasks)
p_values = prior_predictive_p_values(prior, tasks, statistic=num_tumours, generator=seed)
none, none_drawn = (tumours == 0).sum(), draw_none(prior.sample(2000 * 71, generator=seed)(None).reshape(2000, 71))

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
plot_p_values(p_values, names=COUNTS.split(), ax=left)
right.hist(none_drawn, bins=torch.arange(22) - 0.5, color="0.8", label="data sets drawn from the prior")
right.axvline(none, color=RED, lw=2, label="the data")
right.set(xlabel="groups without a tumour, of 71", ylabel="data sets, of 2000", xticks=range(0, 21, 5))
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False, fontsize="small", loc="upper left")
right.margins(y=0.25)
plt.show()
print(f"smallest p-value {float(p_values.min()):.3f}, {float(p_values.min() * 71):.2f} when counted 71 times")
print(f"as many groups without a tumour: {float((none_drawn >= none).double().mean()):.3f} of the data sets drawn")

# %% [markdown]
# No group has a p-value that is small for the smallest of 71. The number of groups without a tumour is rather large, a
# weak hint that the model lacks something.
#
# Do groups come in kinds, say laboratories with sick and with healthy rats? `fit_kinds` adds kinds as long as the
# evidence grows.

# %%
kinds = fit_kinds(BetaBernoulli.initial(tasks), tasks, generator=seed)
best = max(kinds.log_evidence.values())
print("log evidence from the best:", {count: f"{each - best:.1f}" for count, each in kinds.log_evidence.items()})

# %% [markdown]
# Differences in log evidence below one are negligible: one kind is enough. Next, features of a group: the only one here
# is its size.

# %%
informed = Data(tasks.x, tasks.y, tasks.mask, task_x=animals.log()[:, None])
by_size = fit_with_features(BetaBernoulli.initial(informed), informed, moves="all")  # the mean, and how rates differ
sizes = torch.linspace(10, 52, 100).double()
middle, low, high = interval(by_size.given(sizes.log()[:, None]))

fig, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.fill_between(sizes, low, high, color=GREEN, alpha=0.15, lw=0, label="90% of rates at this size")
ax.plot(sizes, middle, color=GREEN, lw=2, label="mean rate at this size")
show_groups(ax)
plt.show()

# %% [markdown]
# In this table large groups have higher rates of tumours, which differ less. To check this, leave each group out again,
# compute its evidence under both priors, and count groups without a tumour once more.

# %%
start_all = BetaBernoulli.initial(tasks)
told = []
for s in range(71):
    rest = informed[[i for i in range(71) if i != s]]
    told.append(fit_with_features(start_all, rest, moves="all").given(informed.task_x[s]).log_evidence(tasks[s]))
ranking = compare({"one prior": left_out.log_evidence, "knows the size": torch.stack(told)})
print(*ranking, sep="\n")
told_none = draw_none(by_size.given(informed.task_x).sample(2000, generator=seed)(None)[..., 0])
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), layout="constrained", width_ratios=(1.2, 1))
plot_comparison(ranking, ax=left)
for values, colour, label in ((none_drawn, "0.8", "one prior"), (told_none, GREEN, "knows the size")):
    right.hist(values, bins=torch.arange(26) - 0.5, color=colour, alpha=0.6, label=label)
right.axvline(none, color=RED, lw=2, label="the data")
right.set(xlabel="groups without a tumour, of 71", ylabel="data sets, of 2000", xticks=range(0, 26, 5))
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False, fontsize="small")
plt.show()
print(f"as many groups without a tumour: {float((told_none >= none).double().mean()):.3f} of the data sets drawn")

# %% [markdown]
# The size helps a little: the difference is less than two of its standard errors. Fourteen groups without a tumour are
# no surprise to a prior that knows the size, so the hint may have been about size. The numbers alone cannot tell
# whether large experiments were done on other rats. For the current group the size makes next to no difference.

# %% [markdown]
# ## Keep it
#
# A prior is one file, without code. Here the one that knows the size, and what both make of the current group.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "rats.safetensors"
    bayesmeta.save(by_size, path)
    again = bayesmeta.load(path)
for name, each in (("one prior", prior), ("knows the size", again.given(animals[-1:].log()))):
    print("{:>15}: current group {:.3f}, 90% from {:.3f} to {:.3f}".format(name, *interval(each.condition(current))))

# %% [markdown]
# ## Other data, other families
#
# | A row is | Family |
# | --- | --- |
# | yes or no | `BetaBernoulli` |
# | one of several categories | `DirichletCategorical` |
# | a count, perhaps over an exposure | `GammaPoisson` |
# | a waiting time | `GammaExponential` |
# | an estimate with a standard error | `NormalKnownVariance` |
# | a number | `NormalInverseGamma` |
# | a vector | `NormalInverseWishart` |
# | a number that depends on inputs | `LinearGaussian`, `LinearNormalInverseGamma`, `GaussianProcess` |
# | several numbers that depend on inputs | `MatrixNormalInverseWishart` |
# | yes or no, or a count, that depends on inputs | `LogisticGaussian`, `PoissonGaussian` |
# | a reward of one of several arms | `CorrelatedArms` |
#
# The same functions work with each of them but `GaussianProcess`, which learns by `fit` alone. `docs/choosing.md` has
# what each assumes, when it is wrong, and what to use then; `docs/checks.md` has the checks; `docs/extending.md` has a
# family of your own.
