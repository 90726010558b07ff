"""What all plots share: axes to draw on, and the look of what is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes

__all__ = ["ABOVE", "GREY", "above", "finished", "marks", "new_axes", "shortened"]

GREY = "0.5"
# where what is drawn leaves no room for a legend: matplotlib's "best" place minds neither error bars nor bands
ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
INCHES_PER_LETTER, INCHES_PER_MARK = 0.06, 0.55  # of a legend's entry in small letters


def new_axes(ax: "matplotlib.axes.Axes | None", *, width: float = 6.0, height: float = 4.0) -> "matplotlib.axes.Axes":
    """Those that are given, or else those of a new figure."""
    if ax is not None:
        return ax
    # a figure of pyplot's, as in ArviZ: a notebook shows it, and plt.show() finds it
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def above(ax: "matplotlib.axes.Axes") -> dict[str, Any]:
    """Where a legend hides nothing, in as many columns as its labels leave room for."""
    labels = ax.get_legend_handles_labels()[1]
    width = ax.get_position().width * ax.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    each = INCHES_PER_MARK + INCHES_PER_LETTER * max(map(len, labels), default=0)
    return {**ABOVE, "ncols": max(1, min(len(labels), int(width / each)))}


def finished(ax: "matplotlib.axes.Axes", show: bool, **legend: Any) -> "matplotlib.axes.Axes":
    """The axes with a legend, where something has a label; `show` shows the figure too."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(edgecolor="none", framealpha=0.7, fontsize="small", **legend)
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return ax


def marks(color: str) -> dict[str, Any]:
    """Open circles, as `arviz.plot_compare` has them."""
    return {"fmt": "o", "color": color, "mfc": "white", "lw": 1.5}


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of `most` letters, cut in the middle, or longer where different names would read alike."""
    short = [_cut(name, most) for name in names]
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        alike.setdefault(_cut(name, most), []).append(name)
    apart = {name: new for group in alike.values() if len(group) > 1 for name, new in _told_apart(group, most).items()}
    return [apart.get(name, cut) for name, cut in zip(names, short, strict=True)]


def _cut(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def _told_apart(names: Sequence[str], most: int) -> dict[str, str]:
    """The beginning of each, and what follows from where they differ first, as much of it as it takes."""
    head = most // 3
    same = next(
        (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), min(map(len, names))
    )
    start = max(same - 1, head)
    gap = "…" if start > head else ""
    for letters in range(most - head - 2, max(map(len, names)) + 1):
        found = {
            name: name[:head] + gap + name[start:][:letters] + ("…" if len(name) > start + letters else "")
            for name in names
        }
        if len(set(found.values())) == len(names):
            break
    return found
