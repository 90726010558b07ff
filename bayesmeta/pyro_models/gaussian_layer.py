r"""Sites that are jointly normal given few others: integrated out exactly, and drawn exactly given these.

Where log p(l, h) is quadratic in the sites l for every h, with gradient $g$, precision
$P(h) = -\partial^2 / \partial l^2$ and $b(h) = g(0, h)$,

$$ \log p(h) = \log p(0, h) + \tfrac12 b^\top P^{-1} b - \tfrac12 \log|P| + \tfrac{|l|}2 \log 2\pi. $$

That it is quadratic is not read from the model but measured. $P(h)$ is a combination of few matrices, such as one for
each scale, and b(h) one of few vectors. These are found once; their weights follow, for each h, from the density at a
few points v and -v, since $2 p(0) - p(v) - p(-v) = v^\top P v$ and $p(v) - p(-v) = 2 b^\top v$ for the logarithms.

Source: Rue, Martino and Chopin, Approximate Bayesian inference for latent Gaussian models (2009), section 2.1.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from bayesmeta.mcmc.draws import Draws
from bayesmeta.mcmc.ladder.rungs import Search
from bayesmeta.mcmc.ladder.sampling import sample
from bayesmeta.mcmc.proposals.laplace import best_mode
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.numerics.gradients import gradients
from bayesmeta.pyro_models.reading.program import Run
from bayesmeta.pyro_models.reading.sites import Site
from bayesmeta.pyro_models.targets import Learned, ModelPrior, ModelTargets, places, roots
from bayesmeta.random import rand, randn
from bayesmeta.warning_kinds import NotConvergedWarning

__all__ = ["GaussianLayer", "gaussian_layer", "sampled_in_layers"]

LADDER = ("laplace_t", "several_starts", "tempered")
NUM_POINTS = 12  # values of the other sites by which the matrices are found: more than there are matrices
SPREAD = 0.7  # of these values, unconstrained
RANK = 1e-9  # singular values, as a share of the largest, that are rounding
SAME = 1e-7  # relative difference of precisions that rounding makes
MOST_NUMBERS = 2**25  # of the matrices of all data sets
AT_ONCE = 2**19  # numbers that are made together
CHOICES = 50  # of points at which a density is evaluated
WIDTHS = (0.7, 1.3, 3.0)  # of a proposal, in those of the curvature at the mode
STEP = 2e-3  # of differences, unconstrained


@dataclass(frozen=True, eq=False)
class GaussianLayer:
    """Targets of the sites h, the normal sites l being integrated out.

    Args:
        targets: of all sites.
        normal: places of l, first those whose precisions have no entries between them.
        others: places of h.
        basis: matrices that every precision is a combination of `(T, r, L, L)`.
        shifts: vectors that every b is a combination of `(T, s, L)`.
        probes: points v `(m, L)` of l at which the density is evaluated, and at -v.
        to_weights: from v' P v to the weights of the matrices `(T, r, m)`.
        to_shifts: from b' v to the weights of the vectors `(T, s, m)`.
        alone: how many come first: given all others they are independent.
    """

    targets: ModelTargets
    normal: Tensor
    others: Tensor
    basis: Tensor
    shifts: Tensor
    probes: Tensor
    to_weights: Tensor
    to_shifts: Tensor
    alone: int = 0

    @property
    def num_tasks(self) -> int:
        return self.targets.num_tasks

    @property
    def width(self) -> int:
        return max(len(self.probes) * 2 * self.targets.width, len(self.normal) * (1 + len(self.normal) - self.alone))

    @property
    def reference(self) -> "_Others":
        return _Others(self.targets.reference, self.others)

    def __getitem__(self, index: Tensor) -> "GaussianLayer":
        names = ("targets", "basis", "shifts", "to_weights", "to_shifts")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def log_density(self, positions: Tensor) -> Tensor:
        found = torch.cat(
            [self._log_density(part) for part in self._parts(positions.reshape(-1, *positions.shape[-2:]))]
        )
        return found.reshape(positions.shape[:-1])

    def _parts(self, positions: Tensor) -> tuple[Tensor, ...]:
        return positions.split(max(1, AT_ONCE // (self.num_tasks * self.width)))

    def _log_density(self, positions: Tensor) -> Tensor:
        value, weights, shift = self._conditional(positions)
        arrow = _Arrow.of(weights, self.basis, self.alone)
        quadratic, log_det = arrow.quadratic(shift)
        found = value + 0.5 * (quadratic - log_det + len(self.normal) * math.log(2.0 * math.pi))
        return found.where(arrow.positive, -torch.inf)

    def derivatives(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By differences, which cost few evaluations where there are few sites."""
        d = positions.shape[-1]
        eye = STEP * torch.eye(d, dtype=positions.dtype)
        pairs = list(combinations(range(d), 2))
        cross = [s * eye[i] + t * eye[j] for i, j in pairs for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
        moves = torch.stack([torch.zeros(d, dtype=eye.dtype), *eye, *-eye, *cross])
        at = positions + moves.reshape(len(moves), *[1] * (positions.ndim - 1), d)
        value, up, down, rest = self.log_density(at).split([1, d, d, len(cross)])
        slope = ((up - down) / (2.0 * STEP)).movedim(0, -1)
        curvature = torch.diag_embed(((up + down - 2.0 * value) / STEP**2).movedim(0, -1))
        for number, (i, j) in enumerate(pairs):
            a, b, c, e = rest[4 * number : 4 * number + 4]
            curvature[..., i, j] = curvature[..., j, i] = (a - b - c + e) / (4.0 * STEP**2)
        return value[0], slope, -curvature

    def _conditional(self, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log density at l = 0, the weights of the matrices of which the precision of l consists, and b."""
        m = len(self.probes)
        points = torch.cat([torch.zeros_like(self.probes[:1]), self.probes, -self.probes])
        points = points.reshape(-1, *[1] * (others.ndim - 1), points.shape[-1])
        value, up, down = self.targets.log_density(self._together(others, points)).split([1, m, m])
        weights = (self.to_weights @ (2.0 * value - up - down).movedim(0, -1)[..., None])[..., 0]
        along = (self.to_shifts @ (0.5 * (up - down)).movedim(0, -1)[..., None])[..., 0]
        return value[0], weights, (along[..., None, :] @ self.shifts)[..., 0, :]

    def _together(self, others: Tensor, normal: Tensor) -> Tensor:
        """Positions of all sites `(..., d)`."""
        lead = torch.broadcast_shapes(others.shape[:-1], normal.shape[:-1])
        whole = normal.new_zeros(*lead, len(self.normal) + len(self.others))
        whole = whole.index_copy(-1, self.normal, normal.expand(*lead, -1))
        return whole.index_copy(-1, self.others, others.expand(*lead, -1))

    def _slopes(self, others: Tensor, normal: Tensor) -> Tensor:
        """Gradient in l at points `(..., L)` of l and h."""
        lead = torch.broadcast_shapes(others.shape[:-1], normal.shape[:-1])
        with gradients():
            at = normal.expand(*lead, -1).clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.targets.log_density(self._together(others, at)).sum(), at)
        return slope.detach()

    def completed(self, others: Tensor, generator: Generator | None) -> Tensor:
        """Positions of all sites `(n, T, d)`, l being drawn given h `(n, T, H)`."""
        return torch.cat([self._drawn(part, generator) for part in self._parts(others)])

    def _drawn(self, others: Tensor, generator: Generator | None) -> Tensor:
        _, weights, shift = self._conditional(others)
        value = _Arrow.of(weights, self.basis, self.alone).draw(shift, generator)
        return self._together(others, value)

    def precisions(self, others: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """P `(n, T, L, L)` by gradients about a point `(L,)` of l, and the gradient there.

        P is the same at every point where l is normal.
        """
        moved = torch.cat([centre[None], centre + torch.eye(len(centre), dtype=centre.dtype)])
        slope = self._slopes(others[:, None], moved[:, None])
        return (slope[:, :1] - slope[:, 1:]).movedim(1, -2), slope[:, 0]


@dataclass(frozen=True, eq=False)
class _Arrow:
    r"""Precisions whose first block is diagonal, $\begin{pmatrix} D & C \\ C^\top & E \end{pmatrix}$.

    Args:
        diagonal: D `(..., a)`.
        across: C `(..., a, m)`.
        root: factor of $E - C^\top D^{-1} C$.
        positive: whether all is positive definite.
    """

    diagonal: Tensor
    across: Tensor
    root: Tensor
    positive: Tensor

    @classmethod
    def of(cls, weights: Tensor, basis: Tensor, alone: int) -> "_Arrow":
        """Combinations `(..., T, r)` of matrices `(T, r, L, L)`."""
        size = basis.shape[-1]
        first = basis[..., :alone, :alone].diagonal(dim1=-2, dim2=-1)
        diagonal = (weights[..., None, :] @ first)[..., 0, :]
        across = (weights[..., None, :] @ basis[..., :alone, alone:].flatten(2))[..., 0, :]
        across = across.unflatten(-1, (alone, size - alone))
        rest = (weights[..., None, :] @ basis[..., alone:, alone:].flatten(2))[..., 0, :]
        rest = rest.unflatten(-1, (size - alone, size - alone)) - across.mT @ (across / diagonal[..., None])
        root, info = torch.linalg.cholesky_ex(rest)
        return cls(diagonal, across, root, (info == 0) & (diagonal > 0).all(-1))

    def quadratic(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """b' P^-1 b and log|P|."""
        half, first = self._eliminated(shift)
        quadratic = (first.square() / self.diagonal).sum(-1) + half.square().sum(-1)
        return quadratic, self.diagonal.log().sum(-1) + 2.0 * self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def draw(self, shift: Tensor, generator: Generator | None) -> Tensor:
        """Of N(P^-1 b, P^-1)."""
        half, first = self._eliminated(shift)
        noise = randn(shift.shape, like=shift, generator=generator)
        alone = first.shape[-1]
        last = torch.linalg.solve_triangular(self.root.mT, (half + noise[..., alone:])[..., None], upper=True)
        mean = (first - (self.across @ last)[..., 0]) / self.diagonal
        return torch.cat([mean + noise[..., :alone] / self.diagonal.sqrt(), last[..., 0]], -1)

    def _eliminated(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        first, last = shift[..., : self.diagonal.shape[-1]], shift[..., self.diagonal.shape[-1] :]
        rest = last - (self.across.mT @ (first / self.diagonal)[..., None])[..., 0]
        return torch.linalg.solve_triangular(self.root, rest[..., None], upper=False)[..., 0], first

    def whole(self) -> Tensor:
        """P itself."""
        across, alone = self.across, self.across.shape[-2]
        rest = self.root @ self.root.mT + across.mT @ (across / self.diagonal[..., None])
        top = torch.cat([torch.diag_embed(self.diagonal), across], -1)
        return torch.cat([top, torch.cat([across.mT, rest], -1)], -2) if alone else rest


@dataclass(frozen=True, eq=False)
class _Others:
    """The prior of the sites h, which depend on none of l: a `Proposal`."""

    prior: ModelPrior
    others: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.prior.batch_shape

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        return self.prior.sample_params(num_draws, generator=generator)[..., self.others]

    def log_prob(self, params: Tensor) -> Tensor:
        whole = params.new_zeros(*params.shape[:-1], self.prior.program.structure.d)
        whole[..., self.others] = params
        return self.prior.program.run(whole, self.prior.given, self._density)

    def _density(self, run: Run) -> Tensor:
        sites = [site for site in self.prior.program.structure.latent if site.start in self.others.tolist()]
        learned = self.prior.learned
        if learned is None:
            return torch.stack([run.prior[site.name] for site in sites]).sum()
        of = roots(self.prior.program.structure)
        mine = tuple(site for site in sites if site in of)
        parts = [run.prior[site.name] for site in sites if site not in of]
        if mine:
            kept = torch.isin(places(of), places(mine))
            cov = (learned.scale_tril @ learned.scale_tril.mT)[kept][:, kept]
            marginal = Learned(learned.loc[kept], torch.linalg.cholesky(cov))
            parts.append(marginal.log_prob(run.position[places(mine)]))
        return torch.stack(parts).sum()

    def __getitem__(self, index: Any) -> "_Others":
        return replace(self, prior=self.prior[index])


@torch.no_grad()
def gaussian_layer(targets: ModelTargets) -> GaussianLayer | None:
    """The normal sites of a model, where all others are few; None where there are none, or they are all."""
    latent, d = targets.program.structure.latent, targets.program.structure.d
    at = torch.zeros(1, 1, d, dtype=torch.float64)
    first = targets[torch.tensor([0])]
    found = first.program.functions(at, first.given, tuple(site.name for site in latent))
    sites = [site for site in latent if _is_normal(found[site.name])]
    # a site that l depends on may be normal itself, and yet multiply another: leave one out, if need be
    for left_out in (None, *sites):
        normal = [site for site in sites if site is not left_out]
        others = [site for site in latent if site not in normal]
        names = {site.name for site in normal}
        if not normal or not others or any(names & set(site.parents) for site in others):
            continue
        if (layer := _measured(targets, normal, others)) is not None:
            return layer
    return None


def _is_normal(fn: Any) -> bool:
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, Normal | MultivariateNormal)


def _measured(targets: ModelTargets, normal: Sequence[Site], others: Sequence[Site]) -> GaussianLayer | None:
    """The layer, where the precision of `normal` is the same wherever these are, and a combination of few matrices."""
    g = torch.Generator().manual_seed(0)
    at_normal, at_others = places(tuple(normal)), places(tuple(others))
    tasks, size = targets.num_tasks, len(at_normal)
    if tasks * NUM_POINTS * size**2 > MOST_NUMBERS:
        return None
    like = torch.zeros((), dtype=torch.float64)

    def values(num: int) -> Tensor:
        return SPREAD * randn((num, 1, len(at_others)), like=like, generator=g).expand(-1, tasks, -1)

    none = torch.zeros(tasks, 0, 0, dtype=torch.float64)
    layer = GaussianLayer(targets, at_normal, at_others, none, none, none[0], none, none)
    points, zero, elsewhere = values(NUM_POINTS), torch.zeros(size).double(), randn((size,), like=like, generator=g)
    if not _agree(layer.precisions(points[:2], zero)[0], layer.precisions(points[:2], elsewhere)[0]):
        return None
    found, slopes = layer.precisions(points, zero)
    basis, shifts = _spanning(found.flatten(2)), _spanning(slopes)
    if max(basis.shape[1], shifts.shape[1]) >= NUM_POINTS - 1:
        return None
    basis = basis.unflatten(-1, (size, size))
    order, alone = _independent(0.5 * (basis + basis.mT))
    basis, shifts = basis[..., order, :][..., order], shifts[..., order]
    probes, to_weights, to_shifts = _probes(basis, shifts, g)
    layer = GaussianLayer(targets, at_normal[order], at_others, basis, shifts, probes, to_weights, to_shifts, alone)
    new = values(2)
    _, weights, shift = layer._conditional(new)
    whole = _Arrow.of(weights, basis, alone).whole()
    expected, slope = layer.precisions(new, zero)
    return layer if _agree(whole, expected) and _agree(shift[..., None], slope[..., None]) else None


def _spanning(values: Tensor) -> Tensor:
    """Vectors `(T, r, n)` of which `values` `(k, T, n)` are combinations."""
    _, size, rows = torch.linalg.svd(values.movedim(0, 1), full_matrices=False)
    rank = int((size > RANK * size[:, :1]).sum(1).max())
    return rows[:, :rank]


def _probes(basis: Tensor, shifts: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points of l that tell matrices and vectors apart, and the inverses of what they see of them.

    Of several random choices, each with some coordinates only, the one that magnifies rounding least.
    """
    num, best = max(basis.shape[1], shifts.shape[1]) + 1, None
    for _ in range(CHOICES):
        probes = randn((num, basis.shape[-1]), like=basis, generator=generator)
        probes = probes * (
            rand(probes.shape, like=basis, generator=generator) < rand((num, 1), like=basis, generator=generator)
        )
        seen = torch.einsum("mi,trij,mj->tmr", probes, basis, probes), probes @ shifts.mT
        least = min(float(torch.linalg.svdvals(matrix).amin()) for matrix in seen)
        if best is None or least > best[0]:
            best = (least, probes, *(torch.linalg.pinv(matrix) for matrix in seen))
    assert best is not None
    return best[1:]


def _independent(basis: Tensor) -> tuple[Tensor, int]:
    """An order in which a diagonal block comes first, as large as a greedy choice finds, and its size."""
    size = basis.abs()
    linked = (size > RANK * size.amax((-1, -2), keepdim=True)).flatten(0, 1).any(0)
    linked.fill_diagonal_(False)
    chosen, free = [], torch.ones(len(linked), dtype=torch.bool)
    for i in linked.sum(-1).argsort(stable=True).tolist():
        if free[i]:
            chosen.append(i)
            free &= ~linked[i]
    rest = [i for i in range(len(linked)) if i not in set(chosen)]
    return torch.tensor([*chosen, *rest]), len(chosen)


def _agree(a: Tensor, b: Tensor) -> bool:
    scale = b.abs().amax((-1, -2), keepdim=True)
    return bool(((a - b).abs() <= SAME * scale).all())  # false of NaN


def _about_modes(layer: GaussianLayer, generator: Generator) -> StudentMixture:
    """A narrow and two wide Student t about the mode of each data set: densities of scales are skewed."""
    search = Search.of(layer, NUM_POINTS, generator)
    search.climb_from(2)
    one = best_mode(search.modes)
    factors = torch.tensor(WIDTHS, dtype=torch.float64)
    return StudentMixture(
        torch.zeros(layer.num_tasks, len(WIDTHS), dtype=torch.float64),
        one.loc.expand(-1, len(WIDTHS), -1),
        one.scale_tril * factors[:, None, None],
    )


def sampled_in_layers(layer: GaussianLayer, *, num_draws: int, num_chains: int, generator: Generator) -> Draws | None:
    """Draws of all sites: chains of the few, and of the normal ones given each. None where chains fail their checks.

    Densities of the draws are those of the few.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # all sites together are tried next
        draws = sample(
            layer,
            num_draws=num_draws,
            num_chains=num_chains,
            learned=_about_modes(layer, generator),
            ladder=LADDER,
            constrain=layer.targets.constrain,
            progress=False,
            generator=generator,
        )
    if not bool(draws.passed.all()):
        return None
    flat = draws.position.flatten(0, 1)
    whole = layer.completed(flat, generator).unflatten(0, (num_chains, num_draws))
    return replace(draws, chains=replace(draws.chains, position=whole.permute(2, 3, 0, 1).contiguous()))
