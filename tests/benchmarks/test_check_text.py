"""Pages say what results say: the check finds what differs, and there is nothing to find."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import check_text
from benchmarks.check_text import PAGES, RESULTS, differences
from bo.replay import demo

A_TABLE = """
<!-- table of tuning.json: cold/macro/{row}/{column}; not kept: 3 -->
| method | 1 | 3 | 5 |
| --- | --- | --- | --- |
| `default` | .357 | .207 | .139 |
"""
A_PARAGRAPH = """
<!-- numbers of hpob_unseen.json: .62 [.50, .75] = cold/ratio/default/5; 0.16 = cold/hurt/default/5 -->
It has .62 [.50, .75] of the regret,
and hurts on 0.16 of the tasks.

It has .99, which nothing is said of.
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_pages_agree_with_results(page: Path) -> None:
    text = page.read_text()
    assert differences(text) == []
    # a comment that is not understood would hold nothing
    assert len(check_text.COMMENT.findall(text)) == len(re.findall(r"<!-- (?:table|numbers) of", text))


def test_every_file_of_figures_is_asked() -> None:
    asked = {file for page in PAGES for _, file, *_ in check_text.COMMENT.findall(page.read_text())}
    assert asked == {path.name for path in RESULTS.glob("*.json")}


@pytest.mark.parametrize(
    ("text", "old", "new", "found"),
    [
        (A_TABLE, ".139", ".138", "cold/macro/default/5 is 0.139154, not .138"),
        (A_TABLE, "`default`", "`other`", "there is no figure cold/macro/other/1"),
        (A_PARAGRAPH, ".62", ".63", "cold/ratio/default/5 is 0.62073, not .63"),
        (A_PARAGRAPH, ".50", ".51", "cold/ratio/default/5 is 0.501"),
    ],
)
def test_what_differs_is_found(text: str, old: str, new: str, found: str) -> None:
    assert differences(text) == []
    assert any(found in line for line in differences(text.replace(old, new)))


def test_a_paragraph_without_its_number_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"has no 0\.16"):
        differences(A_PARAGRAPH.replace("on 0.16 of", "on 0.17 of"))


def test_the_figure_of_the_demo_is_of_its_results() -> None:
    curves = json.loads((RESULTS / "demo.json").read_text())["data sets"]
    with Image.open(RESULTS.parent.parent / "docs" / "demo.png") as figure:
        assert figure.info["Description"] == f"curves {demo.digest(curves)}"
