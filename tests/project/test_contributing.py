"""The skeletons of CONTRIBUTING.md run as they stand, one after another, and do what the page says."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import scipy.stats
import torch

from tests.seeds import seed

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
SKELETONS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
HEADINGS = re.findall(r"^### (.*)$", PAGE, re.M)


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, Any]]:
    """What the skeletons leave behind."""
    module = ModuleType("contributing")  # a saved policy is found by its module
    sys.modules[module.__name__] = module
    for skeleton in SKELETONS:
        exec(compile(skeleton, "CONTRIBUTING.md", "exec"), vars(module))
    yield vars(module)
    del sys.modules[module.__name__]


def test_each_kind_has_a_skeleton() -> None:
    assert len(SKELETONS) == len(HEADINGS) >= 5


def test_the_family_is_held_to_the_laws(names: dict[str, Any]) -> None:
    laws = {law.__name__ for law in names["laws_of"](names["family"])}
    assert laws >= {"two_updates_equal_one", "a_batch_equals_a_loop", "padding_is_invisible"}


def test_the_policy_is_held_to_the_laws_and_learns(names: dict[str, Any]) -> None:
    laws = {law.__name__ for law in names["bandits"].testing.laws_of(names["case"])}
    assert laws >= {"a_batch_of_tasks_equals_a_loop", "propensities_are_how_often_arms_are_chosen"}
    policy = names["case"].policy()
    policy.learn(["a", "b"], [0.0, 1.0])
    assert policy.choose().arm == "b"


def test_the_suggester_goes_to_the_corners(names: dict[str, Any]) -> None:
    studies = names["studies"]
    params = studies.run(studies.study(), 8)
    assert len({(each["rate"] > 1e-2, each["dropout"] > 0.45) for each in params}) == 4


def test_the_kernel_keeps_its_target(names: dict[str, Any]) -> None:
    position, draws = torch.randn(4000, 1, dtype=torch.float64, generator=seed(0)), seed(1)
    for _ in range(20):
        position = names["random_walk"](position, lambda z: -0.5 * z.square().sum(-1), scale=2.4, generator=draws)
    assert scipy.stats.kstest(position[:, 0].numpy(), "norm").pvalue > 1e-6


def test_a_prior_learns_on_the_network(names: dict[str, Any]) -> None:
    tasks, features = names["tasks"], names["features"]
    posterior = names["prior"].condition(features.of(tasks.rows(slice(6))))
    error = (posterior.predict(features(tasks.x)).mean - tasks.y)[:, 6:]
    assert error.square().mean() < 0.25 * tasks.y.square().mean()
