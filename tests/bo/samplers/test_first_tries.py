"""What a sampler would try first: good places that lie apart, as workers that start together would choose them."""

import optuna
import torch

from bo import MetaSampler
from bo.samplers.first_tries import first_tries
from bo.samplers.request import APART, distance
from tests.bo.past import learned
from tests.seeds import seed, shifted

NUM = 4


def test_they_lie_apart_and_are_what_past_tasks_did_well_with() -> None:
    prior = learned()
    points = first_tries(prior, NUM)
    assert points.shape == (NUM, prior.space.num_columns)
    torch.testing.assert_close(prior.space.snap(points), points, rtol=0, atol=1e-12)
    for number in range(1, NUM):
        assert distance(points[number : number + 1], points[:number]) > APART
    everywhere = prior.functions.marginal(prior.space.sobol(256, generator=seed(0))).mean
    assert prior.functions.marginal(points).mean.min() > everywhere.median()


def test_the_first_is_that_of_a_study() -> None:
    prior = learned()
    study = optuna.create_study(sampler=MetaSampler(prior, seed=shifted(0)))
    asked = study.ask(prior.space.distributions)
    expected, of_study = (
        prior.functions.marginal(x).mean.item() for x in (first_tries(prior, 1), prior.space.to_unit([asked.params]))
    )
    best = prior.functions.marginal(prior.space.sobol(2048, generator=seed(1))).mean.max().item()
    assert min(expected, of_study) > 0.95 * best
