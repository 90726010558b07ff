"""The command `bayesmeta`, from its first moment to its exit status.

What it does are functions that packages list in the entry points `bayesmeta.commands`, each under the name of its
command, with typer's annotations:

    [project.entry-points."bayesmeta.commands"]
    fit = "bo.commands:fit"

It imports next to nothing, so that Ctrl-C is heard, and heeded without a traceback, while the rest is imported.
"""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["app", "main", "plain_warnings"]

GROUP = "bayesmeta.commands"

INTERRUPTED = 128 + signal.SIGINT  # what shells call it


def main() -> None:
    """Run the command; what a user can put right is one line on stderr and exit status 1."""
    with _heeding_ctrl_c():
        for stream in (sys.stdout, sys.stderr):
            _let_print_anything(stream)
        try:
            with plain_warnings():
                app()()
        except (ValueError, TypeError, OSError, ImportError) as error:
            sys.exit(f"error: {' '.join(str(error).split())}")


def app() -> Any:
    """The command as a typer application, with what installed packages bring."""
    from importlib.metadata import entry_points

    import typer
    from typer.core import TyperCommand

    class Command(TyperCommand):
        """A command whose usage names its arguments without the braces of a template."""

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    made = typer.Typer(
        help="Learn a prior from past tasks, save it as one file, and start the next task from it.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help needs no import of rich
    )
    version = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    )

    @made.callback()
    def common(version: bool = version) -> None:
        pass

    for entry in entry_points(group=GROUP):
        made.command(entry.name, cls=Command)(entry.load())
    return made


def _print_version(is_asked: bool) -> bool:
    if is_asked:
        import typer

        from bayesmeta import __version__

        typer.echo(f"bayesmeta {__version__}")
        raise typer.Exit
    return is_asked


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show a warning as one line, without the place in a program that a user of the command did not write."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _heeding_ctrl_c() -> Iterator[None]:
    """End with `INTERRUPTED`, also where an import makes another error of Ctrl-C, or drops it."""
    heard = False

    def hear(number: int, frame: Any) -> None:
        nonlocal heard
        heard = True
        raise KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if heard:
            os._exit(INTERRUPTED)
        hook(unraisable)

    handler, hook = signal.signal(signal.SIGINT, hear), sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield
    except BaseException as error:
        if heard or isinstance(error, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook


def _let_print_anything(stream: Any) -> None:
    """Where the encoding lacks a letter, as that of the C locale lacks é, print its number."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
