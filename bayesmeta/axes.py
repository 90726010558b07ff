"""What all plots share: axes to draw on, and the look of what is drawn."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes

__all__ = ["ABOVE", "GREY", "finished", "marks", "new_axes"]

GREY = "0.5"
# where rows leave no room for a legend
ABOVE: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}


def new_axes(ax: "matplotlib.axes.Axes | None", *, width: float = 6.0, height: float = 4.0) -> "matplotlib.axes.Axes":
    """Those that are given, or else those of a new figure."""
    if ax is not None:
        return ax
    # a figure of pyplot's, as in ArviZ: a notebook shows it, and plt.show() finds it
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


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
