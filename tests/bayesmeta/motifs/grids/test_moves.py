"""Blocks of grid networks: their conditional distributions, and chains that are exact whatever was learned."""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from bayesmeta.mcmc import effective_size, run
from bayesmeta.mcmc.kernels.gibbs import to_bits
from bayesmeta.mcmc.kernels.independence import acceptance
from bayesmeta.mcmc.kernels.protocol import Kernel
from bayesmeta.motifs.grids.conditioned import SCALE, Conditioned, Tiles
from bayesmeta.motifs.grids.exact import enumerated
from bayesmeta.motifs.grids.kernels import BlockSweeps, RowSweeps
from bayesmeta.motifs.grids.motif import GridMotif
from bayesmeta.motifs.grids.moves import ExactMove, LearnedMove, block_states, exact_log_probs, log_weights
from bayesmeta.motifs.grids.network import GridNetwork, random_grids, single_site
from bayesmeta.motifs.learning import MotifSchedule, learn
from bayesmeta.motifs.networks import BernoulliProposal
from tests.seeds import seed


def grids(num: int, rows: int, columns: int, number: int = 0) -> GridNetwork:
    return random_grids(num, rows, columns, torch.linspace(0.0, 0.8, num).double(), generator=seed(number))


def wild(height: int, width: int, scale: float = 1.0) -> BernoulliProposal:
    """That has learned nothing, and has opinions."""
    start = BernoulliProposal.initial(
        num_inputs=5 * height * width, num_values=height * width, num_components=3, width=8, num_layers=1
    )
    weights = {name: scale * torch.randn(v.shape, generator=seed(7)) for name, v in start.weights.items()}
    return start.with_weights(weights)


def exact_draws(network: GridNetwork, num: int, number: int = 3) -> Tensor:
    """Positions `(num, models, d)` from listed probabilities."""
    d = network.size[0] * network.size[1]
    codes = torch.multinomial(enumerated(network)[1], num, replacement=True, generator=seed(number)).mT
    return (codes[..., None] >> torch.arange(d - 1, -1, -1) & 1).double()


def stays(kernel: Kernel, network: GridNetwork, num_steps: int = 6) -> Tensor:
    """Errors of the probabilities of nodes and of pairs, in standard errors, after steps from exact draws."""
    start = exact_draws(network, 4000)
    state, positions, densities, _ = run(kernel, kernel.init(start), num_steps, seed(4))
    torch.testing.assert_close(densities[-1], network.log_density(positions[-1]))
    fresh = exact_draws(network, 40_000, 13)
    assert bool((state.position != start).any())
    x, y = (torch.cat([z, z[..., 1:] * z[..., :-1]], -1) for z in (state.position, fresh))
    mean = y.mean(0)
    return (x.mean(0) - mean).abs() / ((mean * (1.0 - mean) * (1 / 4000 + 1 / 40_000)).sqrt() + 1e-3)


@pytest.mark.parametrize(("row", "column", "height", "width"), [(0, 0, 2, 2), (1, 1, 2, 2), (2, 1, 1, 3), (0, 2, 3, 2)])
def test_a_block_given_the_rest_has_the_density_of_the_network(row: int, column: int, height: int, width: int) -> None:
    network = grids(3, 4, 4)
    tile = Tiles(network, height, width).tile([(row, column)])
    x = torch.randint(2, (5, 3, 16), generator=seed(1)).double()
    block = tile.conditioned(to_bits(x))
    states = block_states(height, width)[0].double()
    inside, whole = [], []
    for state in states:
        there = x.clone()
        there[..., tile.nodes[0]] = state
        whole.append(network.log_density(there).mT)
        inside.append(block.log_density(state.expand(1, 3, 5, -1))[0])
    torch.testing.assert_close(torch.stack(inside).log_softmax(0), torch.stack(whole).log_softmax(0))
    listed = exact_log_probs(block.flat()).reshape(3, 5, -1).movedim(-1, 0)
    torch.testing.assert_close(listed, torch.stack(whole).log_softmax(0))


def test_blocks_of_a_group_do_not_see_each_other() -> None:
    tiles = Tiles(grids(1, 9, 8), 3, 2)
    groups = tiles.at(0, 0)
    assert sum(len(tile.nodes) for tile in groups) == 12
    for tile in groups:
        around = torch.cat(
            [getattr(tile, n) for n in ("above", "left", "below", "right", "beside_below", "over_right")], 1
        )
        for block in range(len(tile.nodes)):
            assert not set(tile.nodes[block].tolist()) & set(around.flatten().tolist())


def test_blocks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid of 2 x 3 nodes; got 3 x 3"):
        BlockSweeps(grids(1, 2, 3), ExactMove()).tiles  # noqa: B018


def test_detailed_balance_holds_to_rounding() -> None:
    """All 16 x 16 probabilities of a move of two of the four nodes of a network."""
    network, proposal = grids(1, 2, 2), wild(1, 2)
    proposal = proposal.to(torch.float64)
    _, probs = enumerated(network)
    every = (torch.arange(16)[:, None] >> torch.arange(3, -1, -1) & 1).double()[:, None]
    for start in ((0, 0), (1, 0)):
        tile = Tiles(network, 1, 2).tile([start])
        block = tile.conditioned(to_bits(every)).flat()  # 16 positions of the network
        q = proposal.blocks(block.inputs())
        states = block_states(1, 2)[0].double()
        log_q = torch.stack([q.log_prob(state.expand(1, 16, 2))[0] for state in states], -1)
        torch.testing.assert_close(log_q.logsumexp(-1), torch.zeros(16).double())
        new = torch.stack([log_weights(block, q, state.expand(1, 16, 2))[0] for state in states], -1)
        old = log_weights(block, q, every[:, 0, tile.nodes[0]][None])[0]
        moved = log_q.exp() * acceptance(new, old[:, None])
        transition = torch.zeros(16, 16).double()
        for i in range(16):
            for k, state in enumerate(states):
                to = every[i, 0].clone()
                to[tile.nodes[0]] = state
                transition[i, int((to * torch.tensor([8.0, 4.0, 2.0, 1.0])).sum())] += moved[i, k]
        transition += torch.diag(1.0 - transition.sum(1))
        flow = probs[0][:, None] * transition
        torch.testing.assert_close(flow, flow.mT, rtol=0.0, atol=1e-15)


@pytest.mark.parametrize("scale", [0.1, 0.4])
def test_wrecked_weights_leave_the_posterior_as_it_is(scale: float) -> None:
    network = grids(2, 3, 3, 3)
    kernel = BlockSweeps(network, LearnedMove(wild(2, 2, scale)), 2, 2, num_single=0)
    assert bool((stays(kernel, network) < 5.0).all())


KERNELS: dict[str, Callable[[GridNetwork], Kernel]] = {
    "single": single_site,
    "rows": RowSweeps,
    "blocks": lambda network: BlockSweeps(network, ExactMove(), 2, 2),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_exact_draws_leave_the_posterior_as_it_is(kind: str) -> None:
    network = grids(2, 4, 3, 5)
    assert bool((stays(KERNELS[kind](network), network) < 5.0).all())


def test_one_exact_block_of_the_whole_network_is_an_independent_draw() -> None:
    network = grids(1, 2, 3)
    kernel = BlockSweeps(network, ExactMove(), 2, 3, num_single=0)
    _, positions, _, _ = run(kernel, kernel.init(torch.zeros(4000, 1, 6).double()), 1, seed(5))
    exact = enumerated(network)[0].flatten(1)
    error = (exact * (1.0 - exact) / 4000).sqrt() + 1e-3
    assert bool(((positions[0].mean(0) - exact).abs() < 5.0 * error).all())


def test_total_variation_falls_as_the_root_of_the_draws() -> None:
    """Sixteen times the draws have a fourth of the distance to enumerated probabilities."""
    network = grids(1, 2, 3, 6)
    kernel = BlockSweeps(network, LearnedMove(wild(2, 2, 0.2)), 2, 2)
    _, positions, _, _ = run(kernel, kernel.init(exact_draws(network, 1000)), 64, seed(8))
    _, probs = enumerated(network)
    codes = (positions[:, :, 0] * 2.0 ** torch.arange(5, -1, -1)).sum(-1).long()
    few = torch.stack([_distance(part, probs[0]) for part in codes.flatten().split(4000)])
    assert 0.15 < float(_distance(codes.flatten(), probs[0]) / few.mean()) < 0.5


def _distance(codes: Tensor, probs: Tensor) -> Tensor:
    shares = torch.bincount(codes, minlength=len(probs)) / len(codes)
    return 0.5 * (shares - probs).abs().sum()


@cache
def learned() -> BernoulliProposal:
    start = BernoulliProposal.initial(num_inputs=10, num_values=2, num_components=3, width=16, num_layers=1)
    return learn(start, GridMotif(1, 2), MotifSchedule(60, 256, 0.01), generator=seed(9))


def test_learning_brings_proposals_near_the_exact_ones() -> None:
    inputs, values = GridMotif(1, 2).draw(2000, generator=seed(10))
    block = Conditioned(SCALE * inputs[:, :8].reshape(-1, 1, 2, 2, 2), SCALE * inputs[:, 8:].reshape(-1, 1, 2))
    index = (values @ torch.tensor([2.0, 1.0])).long()[:, None]
    best = exact_log_probs(block).gather(-1, index).mean()
    after = learned().blocks(inputs).log_prob(values[None]).mean()
    assert best - after < 0.25 * (best - 2.0 * math.log(0.5))


def test_a_learned_proposal_mixes_faster_than_a_wrecked_one() -> None:
    """It changes the effective size, and nothing else."""
    network = grids(1, 3, 3, 8)
    rates, sizes = [], []
    for proposal in (learned(), wild(1, 2, 3.0)):
        kernel = BlockSweeps(network, LearnedMove(proposal, 1), 1, 2, num_single=0)
        _, _, densities, info = run(kernel, kernel.init(exact_draws(network, 200)), 40, seed(11))
        rates.append(float(info.acceptance_rate.mean()))
        sizes.append(float(effective_size(densities[:, :, 0].mT)))
    assert rates[0] > rates[1] + 0.1
    assert sizes[0] > 1.5 * sizes[1]


def test_sizes_of_motif_and_proposal_must_agree() -> None:
    with pytest.raises(ValueError, match="the proposal is for 10 inputs and 2 values; the motif has 20 and 4"):
        learn(wild(1, 2), GridMotif(2, 2))
