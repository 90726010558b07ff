"""Distributions of one number against SciPy's quadrature."""

import pytest
import scipy.integrate
import scipy.stats
import torch

from bayesmeta.distributions.marginals import LogitNormalMarginal
from bayesmeta.numerics.quadrature import log_mean_sigmoid
from tests.families import F64


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.1), (-1.5, 1.0), (3.0, 4.0), (-20.0, 12.0), (0.3, 1e-6)])
def test_a_normal_logit(loc: float, scale: float) -> None:
    ours = LogitNormalMarginal(F64 + loc, F64 + scale)
    assert float(ours.mean) == pytest.approx(float(log_mean_sigmoid(F64 + loc, F64 + scale).exp()), abs=1e-12)

    def moment(z: float) -> float:
        return float((F64 + loc + scale * z).sigmoid() ** 2 * scipy.stats.norm.pdf(z))

    second, _ = scipy.integrate.quad(
        moment, -9, 9, epsabs=1e-13, limit=400, points=[-loc / scale] if scale > 1 else None
    )
    assert float(ours.variance) == pytest.approx(second - float(ours.mean) ** 2, abs=1e-11)
    value = torch.tensor([0.02, 0.4, 0.9]).double()
    logit = (value.logit() - loc) / scale
    torch.testing.assert_close(ours.cdf(value), torch.from_numpy(scipy.stats.norm.cdf(logit.numpy())))
    density = torch.from_numpy(scipy.stats.norm.logpdf(logit.numpy())) - value.log() - (1 - value).log()
    torch.testing.assert_close(ours.log_prob(value), density - torch.tensor(scale).double().log())
