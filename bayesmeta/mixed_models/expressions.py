"""Arithmetic in formulas: which Python expressions are allowed, and what they are with names of columns replaced.

An expression comes as text from anywhere. It is parsed, each node is checked against what is listed here, and a new
expression is built from what passed; nothing else is ever evaluated.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from keyword import kwlist
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "ELEMENTWISE",
    "Column",
    "Expression",
    "Uses",
    "label_of",
    "parsed",
    "rewritten",
    "shown",
    "unreadable",
    "written",
]

# functions of one column, row by row
ELEMENTWISE = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
# functions of a column that remember the rows they first saw, with options that are numbers, strings or lists of them
REMEMBERING = ("I", "bs", "cc", "center", "cr", "cs", "poly", "scale", "standardize")
CATEGORIES = ("C", "factor")
CONTRASTS = ("diff", "helmert", "poly", "sas", "sum", "treatment")
CONSTANTS = {"TRUE": True, "FALSE": False}
OPERATIONS: dict[type[ast.operator], Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
MOST_COLUMNS = 1001  # no polynomial or spline has as many: a formula may not take all memory
LONGEST_SHOWN = 200  # characters of a formula in an error
# strings, names in backticks, R's power, and columns whose names are words of Python, such as class
WORDS = "|".join(word for word in kwlist if word not in ("True", "False", "None"))
QUOTED = re.compile(rf"""("[^"]*"|'[^']*')|`([^`]*)`|(\^)|(?<![\w.])({WORDS})(?![\w.(])""")

Refuse = Callable[[str], ValueError]


class Column(NamedTuple):
    """A column of the table as a formula uses it: as a `number`, a `category`, or as `any` of both, as it holds."""

    name: str
    role: str


@dataclass
class Uses:
    """Columns that expressions use, by the names that stand for them in what is passed on."""

    columns: dict[str, Column] = field(default_factory=dict)

    def alias(self, name: str, role: str) -> str:
        """The name that stands for this column in this role."""
        wanted = Column(name, role)
        for alias, column in self.columns.items():
            if column == wanted:
                return alias
        alias = f"__{len(self.columns)}__"
        self.columns[alias] = wanted
        return alias


@dataclass(frozen=True)
class Expression:
    """Arithmetic on columns of numbers, such as `log(time)`, checked.

    Args:
        text: as it was written.
        code: the same with aliases of columns.
        columns: the columns by alias.
    """

    text: str
    code: ast.expr
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, text: str, what: str) -> "Expression":
        """The expression `text`; `what` says in errors where it stands.

        Raises:
            ValueError: it is no expression, or holds what is not allowed.
        """
        uses = Uses()
        code = rewritten(parsed(text, what), uses, partial(unreadable, text, what=what))
        return cls(text.strip(), code, uses.columns)

    def __call__(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Its value at every row, from the columns by alias; not finite where the arithmetic is not."""
        code = compile(ast.fix_missing_locations(ast.Expression(self.code)), "<formula>", "eval")
        with np.errstate(all="ignore"):
            return np.asarray(eval(code, {"__builtins__": {}}, {**ELEMENTWISE, "I": np.asarray, **values}), dtype=float)


def shown(text: str) -> str:
    """A formula in quotes for an error, cut where it is long."""
    text = text.strip()
    return repr(text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}...")


def unreadable(text: str, reason: str, what: str = "formula") -> ValueError:
    """The error for a formula, or for a part of it."""
    return ValueError(f"cannot read the {what} {shown(text)}: {reason}")


def parsed(text: str, what: str) -> ast.expr:
    """The syntax tree of an expression; names in backticks become names that rewritten knows how to read."""

    def readable(match: re.Match[str]) -> str:
        string, name, power, word = match.groups()
        return string or ("**" if power else f"__quoted_{(word or name).encode().hex()}__")

    try:
        return ast.parse(QUOTED.sub(readable, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or type(error).__name__
        raise unreadable(text, str(reason), what) from None


def _name(node: ast.expr) -> str | None:
    """The name of a column or a function: `x`, `my.x` or what stood in backticks."""
    if isinstance(node, ast.Name):
        quoted = re.fullmatch(r"__quoted_([0-9a-f]*)__", node.id)
        return bytes.fromhex(quoted[1]).decode() if quoted else node.id
    if isinstance(node, ast.Attribute):
        before = _name(node.value)
        return None if before is None else f"{before}.{node.attr}"
    return None


def written(node: ast.AST) -> str:
    """An expression as text, with the names that stood in backticks."""
    return re.sub(r"__quoted_([0-9a-f]*)__", lambda match: f"`{bytes.fromhex(match[1]).decode()}`", ast.unparse(node))


def rewritten(node: ast.expr, uses: Uses, refuse: Refuse, *, term: bool = False) -> ast.expr:
    """The same with aliases for columns, if all of it is allowed; a `term` may call what formulaic alone knows."""
    again = partial(rewritten, uses=uses, refuse=refuse, term=term)
    name = _name(node)
    if name is not None:
        return _constant(CONSTANTS[name]) if name in CONSTANTS else ast.Name(uses.alias(name, "number"), ast.Load())
    match node:
        case ast.Constant(value=bool() | int() | float()):
            return node
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return ast.UnaryOp(node.op, again(node.operand))
        case ast.BinOp() if type(node.op) in OPERATIONS:
            left, right = again(node.left), again(node.right)
            if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
                return _folded(node.op, left.value, right.value, refuse)
            return ast.BinOp(left, node.op, right)
        case ast.Compare(ops=[op]) if isinstance(op, COMPARISONS):
            return ast.Compare(again(node.left), node.ops, [again(node.comparators[0])])
        case ast.Call():
            return _call(node, uses, refuse, term)
    raise refuse(f"{written(node)} is not allowed. {_allowed(term)}")


def _folded(op: ast.operator, left: Any, right: Any, refuse: Refuse) -> ast.Constant:
    """Arithmetic on two numbers, done as on floats, so that no power takes for ever."""
    try:
        value = OPERATIONS[type(op)](float(left), float(right))
    except (ArithmeticError, ValueError):
        value = float("nan")
    if not isinstance(value, float) or not np.isfinite(value):
        raise refuse("arithmetic on its numbers has no finite result")
    return _constant(int(value) if value.is_integer() and abs(value) < 1e15 else value)


def _constant(value: Any) -> ast.Constant:
    return ast.Constant(value)


def _call(node: ast.Call, uses: Uses, refuse: Refuse, term: bool) -> ast.expr:
    name = (_name(node.func) or "").removeprefix("np.")
    again = partial(rewritten, uses=uses, refuse=refuse, term=term)
    if any(isinstance(arg, ast.Starred) for arg in node.args) or any(keyword.arg is None for keyword in node.keywords):
        raise refuse(f"{written(node)} is not allowed: name each argument")
    if name in ELEMENTWISE or name == "I":
        if len(node.args) != 1 or node.keywords:
            raise refuse(f"{name}() takes one argument and no options; got {written(node)}")
        return _calling(name, [again(node.args[0])])
    if term and name in REMEMBERING and node.args:
        sizes = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg in ("df", "degree"))]
        if any(isinstance(size, ast.Constant) and size.value in range(MOST_COLUMNS, 2**63) for size in sizes):
            raise refuse(f"{written(node)} asks for too many columns; {MOST_COLUMNS - 1} are the most")
        options = [_option(arg, refuse) for arg in node.args[1:]]
        return _calling(name, [again(node.args[0]), *options], _keywords(node, refuse, _option))
    if term and name in CATEGORIES and node.args:
        column = _name(node.args[0])
        if column is None:
            raise refuse(f"{name}() takes a column; got {written(node.args[0])}. Make it a column of the table first")
        alias = ast.Name(uses.alias(column, "category"), ast.Load())
        options = [_contrast(arg, refuse) for arg in node.args[1:]]
        return _calling("C", [alias, *options], _keywords(node, refuse, _contrast))
    raise refuse(f"{name or written(node.func)}() is not allowed. {_allowed(term)}")


def _calling(name: str, args: list[ast.expr], keywords: Sequence[ast.keyword] = ()) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), args, list(keywords))


def _keywords(node: ast.Call, refuse: Refuse, read: Any) -> list[ast.keyword]:
    for keyword in node.keywords:
        if str(keyword.arg).startswith("_"):
            raise refuse(f"{keyword.arg} is no option of {written(node.func)}()")
    return [ast.keyword(keyword.arg, read(keyword.value, refuse)) for keyword in node.keywords]


def _option(node: ast.expr, refuse: Refuse) -> ast.expr:
    """A number, a string, TRUE or FALSE, or a list of these."""
    name = _name(node)
    if name is not None and name in CONSTANTS:
        return _constant(CONSTANTS[name])
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return node
        case ast.List() | ast.Tuple():
            return ast.List([_option(each, refuse) for each in node.elts], ast.Load())
    raise refuse(f"the option {written(node)} is not allowed. Options are numbers, strings, and lists of them")


def _contrast(node: ast.expr, refuse: Refuse) -> ast.expr:
    """How categories are coded, such as `contr.sum` or `contr.treatment("b")`; or an option, its numbers as labels."""
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    kind = (_name(call.func) or "").removeprefix("contr.")
    if (_name(call.func) or "").startswith("contr."):
        if kind not in CONTRASTS:
            raise refuse(f"contr.{kind} is not known. Contrasts are {', '.join(f'contr.{each}' for each in CONTRASTS)}")
        func = ast.Attribute(ast.Name("contr", ast.Load()), kind, ast.Load())
        args = [_label(_option(arg, refuse)) for arg in call.args]
        return ast.Call(func, args, _keywords(call, refuse, lambda value, refuse: _label(_option(value, refuse))))
    return _label(_option(node, refuse))


def _label(node: ast.expr) -> ast.expr:
    """Numbers in the options of categories as the labels that stand for them."""
    if isinstance(node, ast.List):
        return ast.List([_label(each) for each in node.elts], ast.Load())
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return _constant(label_of(node.value))
    return node


def label_of(value: Any) -> str:
    """The label of a category: whole numbers without a point, whatever type held them."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _allowed(term: bool) -> str:
    functions = [*ELEMENTWISE, "I", *(("C", *REMEMBERING[1:]) if term else ())]
    return f"Columns, numbers, + - * / ^, comparisons are, and the functions {', '.join(sorted(functions))}"
