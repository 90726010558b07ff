r"""Structural motifs: a block B of variables, those C on which it depends, and the parameters $\Psi$ between them.

Models of one kind have the same motifs again and again, with other parameters. A network that has learned
$q(x_B \mid x_C, \Psi)$ for random parameters proposes blocks in models that it never saw. Since q does not see $x_B$,
one pass serves a move and its reverse, and the move is accepted with

$$ \min\left(1, \frac{p(y_B \mid x_C) \, q(x_B \mid x_C, \Psi)}{p(x_B \mid x_C) \, q(y_B \mid x_C, \Psi)}\right), $$

so that chains have the exact posterior, whatever the network has learned.

Source: Wang, Wu, Moore and Russell, Meta-learning MCMC proposals (2018).
"""

from typing import Protocol, runtime_checkable

from torch import Generator, Tensor

__all__ = ["Motif"]


@runtime_checkable
class Motif(Protocol):
    """What is learned from: blocks under random parameters, drawn from parents to children."""

    @property
    def num_inputs(self) -> int:
        """Numbers that say what x_C and the parameters are."""
        ...

    @property
    def num_values(self) -> int:
        """Of a block."""
        ...

    def draw(self, num: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        """Inputs `(num, num_inputs)`, each with a draw of its block `(num, num_values)`."""
        ...
