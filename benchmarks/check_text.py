"""Do the pages say what the results say? Numbers in README, docs and results are held to the files of `results`.

    python -m benchmarks.check_text

names each number that differs from its file, and fails if there is one. A comment in front of a table or a paragraph
says which file and which figures its numbers are:

    <!-- table of hpob_cold.json: cold/macro/{row}/{column}; not kept: 2, 3 -->
    <!-- table of priors.json: coverage/{row}/5 | coverage_eb/{row}/5 | | score/{row} ± score_se/{row} -->
    <!-- numbers of bandits.json: 1.04 = regret_ratio/robust/permuted_or_vague; .53 = speed/single_us/ours / 1000 -->

`{row}` is the first cell of a row, up to a bracket, `{column}` the head of a column. One figure stands for all columns,
or each column after the first has its own, those with none being free. A number is right if the figure rounds to it;
two numbers in square brackets are the figure's interval. Paragraphs must have the numbers as they stand in the comment.
`cold/ratio/4796, 5636/default/5` is the ratio to `gp` of mean regret over these spaces, or over `all`.

`demo.json`, which `make demo` writes, has curves and no figures: `demo_figures` computes them as the demo does.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bo.replay import demo

__all__ = ["PAGES", "demo_figures", "differences"]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", RESULTS / "README.md", *sorted((ROOT / "docs").glob("*.md")))
DEMO_NAMES = {
    "learned": "learned prior",
    "gp": "Gaussian process from scratch",
    "tpe": "TPE",
    "random": "random search",
}
COMMENT = re.compile(r"<!-- (table|numbers) of (\S+\.json): (.*?) -->\n(.*?)(?=\n\n|\Z)", re.S)
RATIO = re.compile(r"(\w+)/ratio/(all|\d+(?:, \d+)*)/(\w+)/(\d+)")
NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
INTERVAL = re.compile(rf"\[({NUMBER}), ({NUMBER})\]")


class Results(NamedTuple):
    """Figures of a file, and the intervals of those that have one, by name."""

    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]]


def differences(text: str) -> list[str]:
    """What a page says otherwise than the results, one line each."""
    found = []
    for kind, file, spec, block in COMMENT.findall(text.rstrip()):
        results, spec = _results(file), " ".join(spec.split())
        pairs = _cells(spec, block) if kind == "table" else _numbers(spec, block)
        found += [f"{file}: {wrong}" for said, name in pairs for wrong in _wrong(said, name, results)]
    return found


def demo_figures(curves: demo.Curves) -> Results:
    """Regrets of the demo after each trial: `replayed/METHOD/Trial 5`, `live/...`, and one data set by its name.

    `less/METHOD/10` is the learned prior's regret after 5 trials less that of the method after 10, and `harmless` on
    how many data sets the learned prior ends no worse than the Gaussian process.
    """
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    replayed = demo.replayed(curves)
    early = replayed["learned"][:, 4]
    for method, regret in replayed.items():
        name, last = DEMO_NAMES[method], regret.shape[1]
        for t in range(last):
            for start, each in ((f"replayed/{name}/Trial", regret[:, t]), (f"less/{name}", early - regret[:, t])):
                key = f"{start} {t + 1}" if start.endswith("Trial") else f"{start}/{t + 1}"
                figures[key] = float(each.mean())
                low, high = demo.interval(each[:, None])
                intervals[key] = float(low), float(high)
            for data_set, by_method in curves.items():
                place = "live" if data_set == demo.LIVE else data_set
                runs = [run[t] for run in by_method[method]]
                figures[f"{place}/{name}/Trial {t + 1}"] = sum(runs) / len(runs)
    limit = demo.HARMLESS_FACTOR * replayed["gp"][:, -1] + demo.HARMLESS_SLACK
    figures["harmless"] = float((replayed["learned"][:, -1] <= limit).sum())
    return Results(figures, intervals)


@cache
def _results(file: str) -> Results:
    content = json.loads((RESULTS / file).read_text())
    if "figures" not in content:
        return demo_figures(content["data sets"])
    return Results(
        content["figures"], {name: (low, high) for name, (low, high) in content.get("intervals", {}).items()}
    )


def _cells(spec: str, block: str) -> Iterator[tuple[str, str]]:
    """What each cell of a table says, and the figure that it is said of."""
    spec, _, not_kept = spec.partition("; not kept: ")
    head, _, *rows = [[_name(cell) for cell in line.strip().strip("|").split("|")] for line in block.split("\n")]
    cells = [line.strip().strip("|").split("|")[1:] for line in block.split("\n")[2:]]
    names = [each.strip() for each in spec.split("|")]
    names = names * (len(head) - 1) if len(names) == 1 else names
    if len(names) != len(head) - 1:
        raise ValueError(f"{len(head) - 1} columns after the first need as many figures; got {len(names)}: {spec}")
    for (row, *_), said in zip(rows, cells, strict=True):
        for column, name, cell in zip(head[1:], names, said, strict=True):
            if name and cell.strip() and column not in not_kept.split(", "):
                yield cell.strip(), name.format(row=row, column=column)


def _numbers(spec: str, block: str) -> Iterator[tuple[str, str]]:
    """What a paragraph says, and the figure that it is said of."""
    flat = " ".join(block.split())
    for pair in spec.split("; "):
        said, name = pair.split(" = ")
        if not re.search(rf"(?<![\d.]){re.escape(said)}(?![\d]|\.\d)", flat):
            raise ValueError(f"a comment says {said} = {name}, and the paragraph after it has no {said}")
        yield said.rpartition("` ")[2], name


def _wrong(said: str, name: str, results: Results) -> Iterator[str]:
    """Why what is said differs from the figure, if it does."""
    # a table that gives most errors leaves those out that are zero
    for text, key in zip(said.split("±"), name.split("±"), strict=False):
        key, _, divisor = key.strip().partition(" / ")
        value = _value(key, results.figures)
        if value is None:
            yield f"there is no figure {key}, of which a page says {text.strip()}"
            continue
        pairs = []
        if interval := INTERVAL.search(text):
            pairs = list(zip(interval.groups(), results.intervals[key], strict=True))
        if outside := INTERVAL.sub("", text).replace("`", "").strip():
            pairs.append((outside, value / float(divisor or 1)))
        yield from (f"{key} is {value:.6g}, not {text}" for text, value in pairs if not _rounds_to(value, text))


def _value(name: str, figures: dict[str, float]) -> float | None:
    if not (ratio := RATIO.fullmatch(name)):
        return figures.get(name)
    protocol, spaces, method, trial = ratio.groups()
    if spaces == "all":
        return figures.get(f"{protocol}/ratio/{method}/{trial}")
    ours, gp = ([figures[f"{protocol}/regret/{s}/{m}/{trial}"] for s in spaces.split(", ")] for m in (method, "gp"))
    return sum(ours) / sum(gp)


def _rounds_to(value: float, text: str) -> bool:
    text = text.replace(",", "").split(" ")[0]  # thousands, and a unit after a number
    decimals = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-decimals + 1e-9 * abs(value)


def _name(cell: str) -> str:
    return cell.replace("`", "").strip().partition(" (")[0].replace(": ", "/")


def main() -> None:
    """Check all pages."""
    found = [f"{page.relative_to(ROOT)}: {each}" for page in PAGES for each in differences(page.read_text())]
    print(*found, sep="\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
