r"""LaplaceDPS: at each level the prior's step times the likelihood of the rows, as if u there were theta.

As published, for a chain that shrinks theta, $x_l = \sqrt{\bar\alpha_l}\, \theta + \sqrt{1 - \bar\alpha_l}\, e$: the
rows, whose likelihood is $N(\bar\theta, \bar\Sigma)$ in theta, are taken to say of $x_l$ what they would if theta were
$x_l / \sqrt{\bar\alpha_l}$. So the prior's step $N(m, S)$ becomes Gaussian with precision
$S^{-1} + \bar\Sigma^{-1} / \bar\alpha_l$ and mean that precision's inverse times
$S^{-1} m + \bar\Sigma^{-1} \bar\theta / \sqrt{\bar\alpha_l}$; and so does $N(0, I)$ at the highest level.

Here noise is added without shrinking theta: u is $x_l / \sqrt{\bar\alpha_l}$ itself, and the step down to it meets the
rows as theta would. Below the lowest level that is exact. The step has the calibrated covariance of `Chain.below_cov`,
where the published one has that of a step from known theta, which with few levels is too narrow. Without rows it draws
from the chain.

Source: Kveton et al., Online posterior sampling with a diffusion prior (2024), theorem 2 and algorithm 2.
"""

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.numerics.linalg import cholesky, symmetric

__all__ = ["laplace_dps"]


def laplace_dps(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
    """Draws of theta for each task given its rows, of equal weights."""
    top = chain.num_levels - 1
    wide = 1.0 + chain.noises[top].square()
    nothing = rows.y.new_zeros(len(rows.y), noise.num_particles, len(chain.root))
    u = Twist(rows, wide * chain.cov).draw(nothing, wide.sqrt() * noise.normal() @ chain.root.mT, noise.normal())
    for level in range(top, 0, -1):
        mean, cov = chain.below(u, chain.denoise(u, level), level), chain.below_cov(level)
        root = cholesky(cov, "covariance of a step")
        u = Twist(rows, cov).draw(mean, noise.normal() @ root.mT, noise.normal())
    last = Twist(rows, chain.residual(0))
    return WeightedGaussians.equal(last.given(chain.denoise(u, 0)), symmetric(last.cov_given()))
