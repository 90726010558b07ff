r"""From the rows of a task to a mixture of Student t distributions over its parameters, in units of the prior.

Encodings of rows are added, so their order counts for nothing; attention among the rows may go before. A component is
$z = A (x - \mu)$ with z spherical and A lower triangular, an inverse of its scale: so learning solves no equations.

Source: Zaheer et al., Deep sets (2017); Bishop, Mixture density networks (1994); Papamakarios and Murray, Fast
epsilon-free inference of simulation models with Bayesian conditional density estimation (2016).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bayesmeta.mcmc.proposals.student import DEGREES, StudentMixture, student_log_density
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.multihead import SelfAttentionLayer
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.networks.set_encoder import SetEncoder, summary

__all__ = ["Components", "ProposalModule", "ProposalNetwork"]

LARGEST_LOG = 8.0  # of the precision of a direction, in units of the prior
APART = 0.7  # standard deviations of the prior by which centres lie apart at first


class Components(NamedTuple):
    """Of a mixture for each of T tasks.

    Args:
        logits: log weights up to a constant `(T, K)`.
        loc: centres `(T, K, d)`.
        precision: A, lower triangular with a positive diagonal `(T, K, d, d)`.
    """

    logits: Tensor
    loc: Tensor
    precision: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density `(..., T)` of `(..., T, d)`."""
        offset = x[..., None, :] - self.loc
        z = (self.precision * offset[..., None, :]).sum(-1)  # faster than a product of so small matrices
        log_volume = -self.precision.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = student_log_density(z.square().sum(-1), log_volume, x.shape[-1], DEGREES)
        return (self.logits.log_softmax(-1) + each).logsumexp(-1)

    def mixture(self, loc: Tensor, scale_tril: Tensor) -> StudentMixture:
        """Of loc + scale_tril x, in their dtype."""
        eye = torch.eye(len(loc)).to(loc)
        scale = torch.linalg.solve_triangular(self.precision.to(loc), eye, upper=False)
        centres = loc + (scale_tril @ self.loc.to(loc)[..., None])[..., 0]
        return StudentMixture(self.logits.to(loc), centres, scale_tril @ scale)


@dataclass(frozen=True, eq=False)
class ProposalNetwork(Weights):
    """Sizes of the network, with its weights.

    Args:
        num_columns: of a row.
        num_params: of a task.
        num_components: of the mixture.
        width, num_layers: of the encoder of rows and of what reads its sum.
        num_attention: layers of attention among the rows of a task.
        num_heads: of attention.
    """

    num_columns: int
    num_params: int
    num_components: int = 8
    width: int = 64
    num_layers: int = 2
    num_attention: int = 0
    num_heads: int = 4

    def build(self) -> "ProposalModule":
        return ProposalModule(self)


class ProposalModule(nn.Module):
    """See `ProposalNetwork`."""

    def __init__(self, sizes: ProposalNetwork) -> None:
        super().__init__()
        width, k, d = sizes.width, sizes.num_components, sizes.num_params
        self.num_params, self.parts = d, [k, k * d, k * d * d]
        self.attention = nn.ModuleList(SelfAttentionLayer(width, sizes.num_heads) for _ in range(sizes.num_attention))
        self.into = nn.Linear(sizes.num_columns, width) if sizes.num_attention else nn.Identity()
        num_inputs = width if sizes.num_attention else sizes.num_columns
        self.encoder = SetEncoder(num_inputs, width=width, num_layers=sizes.num_layers)
        self.reader = ResidualPerceptron(width + 1, sum(self.parts), width=width, num_layers=sizes.num_layers)
        self._begin()

    def _begin(self) -> None:
        """Whatever the rows are, components as wide as the prior, about centres that lie apart."""
        k, kd = self.parts[:2]
        with torch.no_grad():
            self.reader.last.weight.mul_(0.1)
            self.reader.last.bias.zero_()
            self.reader.last.bias[k : k + kd].normal_(std=APART)

    def summary(self, rows: Tensor, mask: Tensor) -> Tensor:
        """What the network reads of a task's rows, their number among it: `(T, width + 1)`."""
        tokens = self.into(rows)
        for layer in self.attention:
            tokens = layer(tokens, mask)
        return summary(self.encoder(tokens, mask).sum(-2), mask.sum(-1).to(rows))

    def forward(self, rows: Tensor, mask: Tensor) -> Components:
        """Of rows `(T, n, c)`, standardised, zero where `mask` `(T, n)` is false."""
        d = self.num_params
        logits, loc, square = self.reader(self.summary(rows, mask)).split(self.parts, -1)
        square = square.unflatten(-1, (-1, d, d))
        log_diagonal = LARGEST_LOG * torch.tanh(square.diagonal(dim1=-2, dim2=-1) / LARGEST_LOG)
        return Components(logits, loc.unflatten(-1, (-1, d)), square.tril(-1) + torch.diag_embed(log_diagonal.exp()))
