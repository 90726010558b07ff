"""Files of earlier versions load, and what is loaded answers as it did: see `tests.saved_files`."""

import json
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bandits import Policy
from bayesmeta.io import GROUP
from tests.saved_files import (
    SAVED,
    densities_of,
    densities_of_blocks,
    evidence_of,
    expectations_of,
    next_of,
    read_answers,
    told,
)

ANSWERS = read_answers()


@pytest.mark.parametrize("name", ANSWERS["priors"])
def test_priors(name: str) -> None:
    prior, rows = bm.load(SAVED / f"{name}.safetensors"), bm.load(SAVED / f"{name}.rows.safetensors")
    assert evidence_of(told(prior), rows) == pytest.approx(ANSWERS["priors"][name], rel=1e-5)


@pytest.mark.parametrize("name", ANSWERS["proposals"])
def test_proposals(name: str) -> None:
    proposal = bm.load(SAVED / f"{name}.safetensors")
    assert densities_of(proposal) == pytest.approx(ANSWERS["proposals"][name], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ANSWERS["tuning"])
def test_priors_for_tuning(name: str) -> None:
    prior, points = bm.load(SAVED / f"{name}.safetensors"), bm.load(SAVED / f"{name}.rows.safetensors")
    assert expectations_of(prior, points) == pytest.approx(ANSWERS["tuning"][name], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ANSWERS["policies"])
def test_policies(name: str) -> None:
    expected = ANSWERS["policies"][name]
    context = None if expected["context"] is None else torch.tensor(expected["context"])
    answer = next_of(Policy.load(SAVED / f"policy_{name}.safetensors"), context)
    assert answer["expected"] == pytest.approx(expected["expected"], rel=1e-4, abs=1e-6)
    assert answer["chosen"] == expected["chosen"]


@pytest.mark.parametrize("name", ANSWERS["blocks"])
def test_proposals_of_blocks(name: str) -> None:
    proposal = bm.load(SAVED / f"{name}.safetensors")
    assert densities_of_blocks(proposal) == pytest.approx(ANSWERS["blocks"][name], rel=1e-4, abs=1e-5)


def test_every_class_that_can_be_saved_is_in_a_file() -> None:
    found = set()

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            found.update([node["object"]] if "object" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for item in node:
                collect(item)

    for path in SAVED.glob("*.safetensors"):
        collect(json.loads(json.dumps(bm.io.read_header(path)["prior"])))
    assert {
        entry.name for entry in entry_points(group=GROUP) if (entry.dist and entry.dist.name == "bayesmeta")
    } <= found
