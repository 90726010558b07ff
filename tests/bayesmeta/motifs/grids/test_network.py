"""Grid networks: two ways to exact marginals, and single-site Gibbs sampling."""

import pytest
import torch

from bayesmeta.mcmc.kernels.gibbs import BinaryGibbs, from_bits, to_bits
from bayesmeta.motifs.grids.exact import eliminated, enumerated
from bayesmeta.motifs.grids.network import GridNetwork, random_grids, single_site
from tests.seeds import seed


def grids(num: int, rows: int, columns: int, number: int = 0) -> GridNetwork:
    return random_grids(num, rows, columns, torch.linspace(0.0, 0.9, num).double(), generator=seed(number))


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 3), (1, 5), (5, 1)])
def test_elimination_agrees_with_enumeration(rows: int, columns: int) -> None:
    network = grids(6, rows, columns)
    torch.testing.assert_close(eliminated(network)[0], enumerated(network)[0], rtol=1e-9, atol=1e-12)


def test_evidence_is_a_sum_over_all_positions() -> None:
    network = grids(4, 3, 3)
    every = (torch.arange(2**9)[:, None] >> torch.arange(9) & 1).double()
    density = network.log_density(every[:, None].expand(-1, 4, -1))
    torch.testing.assert_close(eliminated(network)[1], density.logsumexp(0), rtol=1e-9, atol=1e-9)


def test_elimination_refuses_wide_grids() -> None:
    with pytest.raises(ValueError, match="at most 14; got 15"):
        eliminated(grids(1, 1, 15))


def test_ancestral_draws_have_the_marginals_without_evidence() -> None:
    network = grids(3, 3, 4)
    network = GridNetwork(network.logits, torch.zeros_like(network.evidence))
    exact, _ = eliminated(network)
    drawn = network.ancestral(10_000, generator=seed(1)).mean(0)
    error = (exact * (1.0 - exact) / 10_000).sqrt()
    assert bool(((drawn - exact).abs() < 5.0 * error + 1e-3).all())


def test_single_site_odds_are_differences_of_the_density() -> None:
    network = grids(2, 3, 4)
    kernel = single_site(network)
    x = torch.randint(2, (7, 2, 12), generator=seed(2)).double()
    bits = to_bits(x)
    for node in range(12):
        ones, zeros = x.clone(), x.clone()
        ones[..., node], zeros[..., node] = 1.0, 0.0
        index = torch.zeros(2, 7, dtype=torch.long)
        for each in kernel.blanket[node]:
            index = 2 * index + bits[each]
        found = kernel.log_odds[:, node].gather(-1, index)
        torch.testing.assert_close(found.mT, network.log_density(ones) - network.log_density(zeros))


def test_bits_are_positions() -> None:
    x = torch.randint(2, (3, 2, 5), generator=seed(5)).double()
    assert torch.equal(from_bits(to_bits(x), x), x)


def test_colours_that_see_each_other_are_refused() -> None:
    kernel = single_site(grids(1, 2, 2))
    with pytest.raises(ValueError, match="colours must differ"):
        BinaryGibbs(kernel.blanket, kernel.log_odds, torch.zeros(4, dtype=torch.long), kernel.log_density)
    with pytest.raises(ValueError, match="log_odds must have shape"):
        BinaryGibbs(kernel.blanket, kernel.log_odds[..., :8], kernel.colours, kernel.log_density)
