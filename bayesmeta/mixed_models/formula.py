"""Formulas of mixed models, `Reaction ~ Days + (Days | Subject)`: what each part says, and the columns it stands for.

The notation is that of Wilkinson and Rogers (1973), with lme4's bars for what varies between groups. A formula is text
that may come from anywhere, so it is read here, and every name and function in it is checked against a list, before
`formulaic` sees it: its own reading would evaluate any Python expression. What is passed on was written here, with
columns under names of our own.

Source: Wilkinson and Rogers, Symbolic description of factorial models for analysis of variance, Applied Statistics 22
(1973); Bates et al., Fitting linear mixed-effects models using lme4, Journal of Statistical Software 67 (2015).
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bayesmeta.mixed_models.expressions import Column, Expression, Uses, parsed, rewritten, unreadable, written

__all__ = ["Formula", "Response", "parse"]

TOKENS = re.compile(
    r"\s*(?:`(?P<quoted>[^`]*)`|(?P<name>[^\W\d][\w.]*)|(?P<number>\d+(?:\.\d*)?|\.\d+)"
    r"|(?P<sign>\|\||\*\*|%in%|[-+*/:^|~(){}]))"
)


class Token(NamedTuple):
    """A piece of a formula: kind `name`, `number`, `sign`, or `call`, whose text is a Python expression."""

    kind: str
    text: str
    start: int


@dataclass(frozen=True)
class Response:
    """The left side: y itself, or for `successes / trials` and `cbind(successes, failures)` both."""

    text: str
    parts: tuple[Expression, ...]
    kind: str  # "number", "ratio" or "cbind"


@dataclass(frozen=True)
class Formula:
    """The parts of a formula.

    Args:
        text: as it was written.
        response: the left side.
        fixed: terms of the mean, for formulaic, with aliases of columns.
        varying: terms whose weights vary between groups, likewise.
        correlated: false where two bars ask for weights that are not correlated.
        group: the column that names groups.
        offsets: what is added to the linear predictor as it is.
        columns: the columns in `fixed` and `varying` by alias.
    """

    text: str
    response: Response
    fixed: str
    varying: str
    correlated: bool
    group: str
    offsets: tuple[Expression, ...]
    columns: Mapping[str, Column]

    def names(self, text: str) -> str:
        """Text with the names of columns for their aliases."""
        return re.sub(r"__\d+__", lambda match: self.columns.get(match[0], Column(match[0], "")).name, text)


def parse(text: str) -> Formula:
    """The parts of a formula such as `incidence / size ~ period + (1 | herd)`.

    Raises:
        TypeError: the formula is not a string.
        ValueError: it cannot be read, calls what is not allowed, or asks for groups that are crossed or nested.
    """
    if not isinstance(text, str):
        raise TypeError(f"a formula must be a string such as 'y ~ x + (x | group)'; got {type(text).__name__}")
    tokens = _tokens(text)
    tildes = [i for i, token in enumerate(tokens) if token.text == "~" and token.kind == "sign"]
    if len(tildes) != 1:
        raise unreadable(text, f"one ~ must stand between the response and the terms; there are {len(tildes)}")
    response = _response(text[: tokens[tildes[0]].start])
    uses, fixed, offsets, bars = Uses(), [], [], []
    for sign, term in _terms(tokens[tildes[0] + 1 :], text):
        is_offset = len(term) == 1 and term[0].kind == "call" and term[0].text.startswith("offset(")
        if sign == "-" and (is_offset or _is_bar(term)):
            raise unreadable(text, f"{_text(term)} cannot be taken away")
        if _is_bar(term):
            bars.append(term)
        elif is_offset:
            offsets.append(Expression.of(_inside(term[0].text), "offset"))
        else:
            fixed.append((sign, term))
    means = _for_formulaic(fixed, uses, text)
    varying, group, correlated = _only_bar(bars, text)
    deviations = _for_formulaic(_terms(varying, text), uses, text)
    return Formula(text, response, means or "1", deviations, correlated, group, tuple(offsets), uses.columns)


# ---- from text to tokens


def _tokens(text: str) -> list[Token]:
    tokens, place = [], 0
    while text[place:].strip():
        match = TOKENS.match(text, place)
        if match is None:
            rest = text[place:].lstrip()
            way_out = ". Name the columns one by one" if rest[0] == "." else ""
            raise unreadable(text, f"{rest[0]!r} at character {len(text) - len(rest) + 1} has no meaning here{way_out}")
        kind, start, place = str(match.lastgroup), match.start(match.lastgroup or 0), match.end()
        found = match[kind]
        if kind == "quoted":
            tokens.append(Token("name", found, start))
        elif kind == "name" and text[place : place + 1] == "(":
            place = _closing(text, place)
            tokens.append(Token("call", text[start:place], start))
        elif kind == "sign" and found == "{":
            place = _closing(text, start)
            tokens.append(Token("call", f"I({text[start + 1 : place - 1]})", start))
        else:
            tokens.append(Token(kind, found, start))
    return tokens


def _closing(text: str, start: int) -> int:
    """Past the bracket that closes the one at `start`; brackets in quotes do not count."""
    pairs, waiting, quote = {"(": ")", "[": "]", "{": "}"}, [], ""
    for place in range(start, len(text)):
        sign = text[place]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'`":
            quote = sign
        elif sign in pairs:
            waiting.append(pairs[sign])
        elif sign in pairs.values():
            if sign != waiting.pop():
                raise unreadable(text, f"the {sign!r} at character {place + 1} closes no bracket of its kind")
            if not waiting:
                return place + 1
    raise unreadable(text, f"the bracket at character {start + 1} is never closed")


def _terms(tokens: Sequence[Token], text: str) -> list[tuple[str, list[Token]]]:
    """Terms with the sign before each; brackets hold terms together."""
    terms: list[tuple[str, list[Token]]] = []
    sign, depth = "+", 0
    term: list[Token] = []
    for token in tokens:
        depth += (token.kind == "sign") * ((token.text == "(") - (token.text == ")"))
        if depth < 0:
            raise unreadable(text, f"the ')' at character {token.start + 1} closes no bracket")
        if depth == 0 and token.kind == "sign" and token.text in "+-":
            if term:
                terms.append((sign, term))
            elif terms or (token.text == "+" and sign == "-"):
                raise unreadable(text, f"a term is missing before the {token.text!r} at character {token.start + 1}")
            sign, term = token.text, []
        else:
            term.append(token)
    if depth:
        raise unreadable(text, "a bracket is never closed")
    if not term:
        raise unreadable(text, "a term is missing at the end" if tokens else "there are no terms to the right of ~")
    return [*terms, (sign, term)]


def _text(tokens: Iterable[Token]) -> str:
    return " ".join(f"`{t.text}`" if t.kind == "name" and not t.text.isidentifier() else t.text for t in tokens)


def _inside(call: str) -> str:
    return call[call.index("(") + 1 : -1]


# ---- what varies between groups


def _is_bar(term: Sequence[Token]) -> bool:
    """Whether a term is one pair of brackets with a bar in it."""
    depth, bars = 0, 0
    if term[:1] == [] or term[0].text != "(":
        return False
    for i, token in enumerate(term):
        if token.kind == "sign":
            depth += (token.text == "(") - (token.text == ")")
            bars += token.text in ("|", "||")
        if depth == 0 and i < len(term) - 1:
            return False
    return bars > 0


def _only_bar(bars: Sequence[Sequence[Token]], text: str) -> tuple[list[Token], str, bool]:
    """Terms, group, and whether weights may correlate, of the one part with a bar."""
    if not bars:
        raise unreadable(
            text, "no part says what varies between groups. Add one, such as (1 | group) for the intercept alone"
        )
    parts = []
    for part in bars:
        tokens = part
        while _is_bar(tokens):
            tokens = tokens[1:-1]
        places = [i for i, token in enumerate(tokens) if token.kind == "sign" and token.text in ("|", "||")]
        if len(places) > 1:
            raise unreadable(text, f"({_text(tokens)}) must have one bar")
        terms, group = list(tokens[: places[0]]), list(tokens[places[0] + 1 :])
        if not terms or not group:
            raise unreadable(
                text, f"({_text(tokens)}) must have terms before the bar and a group after it, as (1 | group)"
            )
        parts.append((terms, group, tokens[places[0]].text == "|"))
    groups = [_text(group) for _, group, _ in parts]
    nested = [group for group in groups if re.search(r"[:/]|%in%", re.sub("`[^`]*`", "", group))]
    if nested:
        raise unreadable(
            text,
            f"({nested[0]}) names nested groups, which are not covered: there is one level. Make one column that "
            "names each combination and let it be the group, and give the outer group's effects to the fixed part",
        )
    if len(set(groups)) > 1:
        raise unreadable(
            text,
            f"{' and '.join(dict.fromkeys(groups))} are crossed or nested groups, which are not covered: there is one "
            f"group. Keep one of them, and move the other to the fixed part, as in C({groups[-1]}) + (1 | {groups[0]})",
        )
    if len(parts) > 1:
        raise unreadable(text, f"{_uncorrelated(groups[0])} into one part")
    (terms, group, correlated), name = parts[0], groups[0]
    if len(group) != 1 or group[0].kind != "name":
        raise unreadable(text, f"the group must be a column; got {name}. Make it a column of the table first")
    return terms, group[0].text, correlated


def _uncorrelated(group: str) -> str:
    return f"weights that vary between {group} without correlation are not covered. Write all terms before one bar,"


# ---- from tokens to what formulaic reads


def _for_formulaic(terms: Sequence[tuple[str, Sequence[Token]]], uses: Uses, text: str) -> str:
    return " ".join(f"{sign} {_term(term, uses, text)}" for sign, term in terms).removeprefix("+ ")


def _term(term: Sequence[Token], uses: Uses, text: str) -> str:
    if any(token.kind == "sign" and token.text in ("|", "||") for token in term):
        raise unreadable(text, "a part with a bar must stand in brackets of its own, as in y ~ x + (x | group)")
    pieces = []
    for i, token in enumerate(term):
        if token.kind == "name":
            pieces.append(uses.alias(token.text, "any"))
        elif token.kind == "call":
            tree = rewritten(parsed(token.text, "term"), uses, partial(unreadable, text), term=True)
            pieces.append(ast.unparse(tree))
        elif token.kind == "number":
            is_power = i > 0 and term[i - 1].text in ("^", "**") and token.text.isdigit() and len(token.text) < 3
            if not is_power and (len(term) > 1 or token.text not in ("0", "1")):
                raise unreadable(text, f"the number {token.text} has no meaning here. Put arithmetic into I(...)")
            pieces.append(token.text)
        else:
            pieces.append(token.text)
    return " ".join(pieces)


# ---- the left side


def _response(text: str) -> Response:
    if not text.strip():
        raise ValueError("a formula must have a response before ~, such as 'y ~ x + (x | group)'")
    tree = parsed(text, "response")
    match tree:
        case ast.BinOp(op=ast.Div()):
            parts, kind = [tree.left, tree.right], "ratio"
        case ast.Call(func=ast.Name(id="cbind"), args=[_, _], keywords=[]):
            parts, kind = tree.args, "cbind"
        case _:
            parts, kind = [tree], "number"
    expressions = []
    for part in parts:
        uses = Uses()
        code = rewritten(part, uses, partial(unreadable, text, what="response"))
        expressions.append(Expression(written(part), code, uses.columns))
    return Response(text.strip(), tuple(expressions), kind)
