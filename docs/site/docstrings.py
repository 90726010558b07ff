"""Docstrings are Markdown with mathematics in dollars; Sphinx reads reStructuredText."""

import re
from collections.abc import Iterator

__all__ = ["to_restructured_text"]

CODE, MATHS, DISPLAY = r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)", r"\$(?P<maths>[^$]+)\$", r"\$\$(?P<display>.+?)\$\$"
MARKED = re.compile(f"{DISPLAY}|{CODE}|{MATHS}|(?P<bold>\\*\\*.+?\\*\\*)", re.S)
SPECIAL = re.compile(r"[\\*`|_]")
LIST = re.compile(r"\s*(?:[-*]|\d+\.) ")
SECTION = re.compile(r"\w+:$", re.M)


def to_restructured_text(text: str) -> str:
    """The same text, marked as Sphinx expects: code, mathematics and bold, with all other signs as they stand."""
    done: list[str] = []
    for block, is_code in _blocks(text):
        done.append(f"::\n\n{block}" if is_code else _with_room_for_lists(_marked_text(block)))
    return "\n\n".join(done)


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Paragraphs, and whether each is code: indented, and not in a section such as `Args:`."""
    in_section = False
    for block in re.split(r"\n\s*\n", text):
        indented = block.startswith("    ")
        in_section = bool(SECTION.match(block)) or (in_section and indented)
        yield block, indented and not in_section


def _marked_text(text: str) -> str:
    done, at = [], 0
    for match in MARKED.finditer(text):
        done += [SPECIAL.sub(r"\\\g<0>", text[at : match.start()]), _marked(match)]
        at = match.end()
    return "".join(done) + SPECIAL.sub(r"\\\g<0>", text[at:])


def _marked(match: re.Match[str]) -> str:
    if match["bold"]:
        return match[0]
    if match["code"]:
        return f"``{' '.join(match['code'].split())}``\\ "
    formula = " ".join((match["maths"] or match["display"]).split())
    return f":math:`{formula}`\\ " if match["maths"] else f"\n\n.. math:: {formula}\n\n"


def _with_room_for_lists(text: str) -> str:
    """An empty line before the first item of each list."""
    lines: list[str] = []
    for line in text.split("\n"):
        if LIST.match(line) and lines and lines[-1].strip() and not LIST.match(lines[-1]):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
