"""The command `bayesmeta`, from its first moment to its exit status; what it does is in `bayesmeta.commands`.

It imports next to nothing, so that Ctrl-C is heard, and heeded without a traceback, while the rest is imported.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["main"]

INTERRUPTED = 128 + signal.SIGINT  # what shells call it


def main() -> None:
    """Run the command; what a user can put right is one line on stderr and exit status 1."""
    with _heeding_ctrl_c():
        for stream in (sys.stdout, sys.stderr):
            _let_print_anything(stream)
        from bayesmeta.commands import app, plain_warnings

        try:
            with plain_warnings():
                app()
        except (ValueError, TypeError, OSError, ImportError) as error:
            sys.exit(f"error: {' '.join(str(error).split())}")


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
