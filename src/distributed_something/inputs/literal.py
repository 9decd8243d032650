"""Reads Python assignments as data: `NAME = value` lines become values; nothing is run.

A value may be built of literals, names defined above, arithmetic, `+ * %` on text, f-strings and
`name[index]`, and the calls of `_FUNCTIONS`. Everything else is refused with its line. Work and results are
bounded: no text can use up the reader's memory or time. `config` is the only caller.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

from ..errors import UsageError
from ..words import many

MAX_SOURCE = 200_000  # maximum characters in a file
MAX_SIZE = 200_000  # maximum characters and items in all values and intermediate values of a file together
MAX_DEPTH = 50  # maximum depth of nested lists and tables
MAX_DOTS = 200
"""Maximum dots in a line of TOML: its parser takes the square of a dotted key's parts in time and memory."""
MAX_BITS = 256  # maximum binary digits of a whole number

_ALLOWED = "text, numbers, lists, names defined above, + - * /, f-strings, min max int round len str"
_SCALARS = (str, int, float, bool, type(None))
_WHAT: Mapping[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute (a dot after a name)",
    ast.Import: "an import",
    ast.ImportFrom: "an import",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.Lambda: "a lambda",
    ast.FunctionDef: "a function",
    ast.ClassDef: "a class",
    ast.If: "an if",
    ast.IfExp: "an if",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.With: "a with",
    ast.Try: "a try",
    ast.AnnAssign: "a name without a value",
    ast.Starred: "a star",
    ast.AugAssign: "a change in place",
    ast.Compare: "a comparison",
    ast.NamedExpr: "an assignment inside an expression",
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "int": int,
    "round": lambda value, digits=None: _round(value, digits),
    "len": len,
    "str": str,
}
"""Pure functions that a config may call."""
_MOST_VALUES = {"int": 1, "len": 1, "str": 1, "round": 2}  # maximum values in a call of these

_CONVERSIONS: Mapping[int, Callable[[Any], Any]] = {-1: lambda value: value, 115: str, 114: repr, 97: ascii}
_PERCENT_WIDTH = r"%[#0\- +]*(\*|(?!0)\d{3,}|\d*\.(\*|\d{3,}))"
_FORMAT_WIDTH = r"(?!0)\d{3,}"


class NotComputed(UsageError):
    """The arithmetic of an expression fails with its values, as a division by zero does."""


class Assignment(NamedTuple):
    """A name, the value given to it, and the line (from 1) where it was given."""

    name: str
    value: Any
    line: int


def read_assignments(text: str, file: str) -> Iterator[Assignment]:
    """Yields the assignments of a text in order; `file` (ending in .py or .toml) decides the format.

    Raises UsageError at the first line that is not data.
    """
    if len(text) > MAX_SOURCE:
        raise UsageError(f"{file}:1: longer than {MAX_SOURCE} characters", "keep data in files of their own")
    if file.endswith(".toml"):
        return _read_toml(text, file)
    if file.endswith(".py"):
        return _read_python(text, file)
    raise UsageError(f"{file}: the name ends neither in .py nor in .toml", "name it config.py or config.toml")


def measure(value: object, depth: int = 0) -> int:
    """Counts the characters and items in a value. Raises ValueError where one is too large or too deep."""
    if depth > MAX_DEPTH:
        raise ValueError("lists are nested too deeply")
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError("a number is too large")
    if isinstance(value, dict):
        return 1 + sum(measure(key, depth + 1) + measure(item, depth + 1) for key, item in value.items())
    if isinstance(value, (list, tuple, set)):
        return 1 + sum(measure(item, depth + 1) for item in value)
    return 1


def _read_python(source: str, file: str) -> Iterator[Assignment]:
    statements = _parse(source, file).body
    reader = _Reader(file, {name: node.lineno for node in reversed(statements) for name in _targets(node)})
    for statement in statements:
        yield from reader.read(statement)


def _parse(source: str, file: str) -> ast.Module:
    """The syntax tree. Raises UsageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # '\d' in a text is the user's style, not news
            return ast.parse(source)
    except SyntaxError as error:
        what = f"{file}:{error.lineno or 1}: this cannot be read as Python: {_one_line(error.msg)}"
        raise UsageError(what, "look for a missing quote, bracket or comma here or just above") from error
    except (RecursionError, MemoryError, ValueError) as error:
        what = f"{file}:1: this cannot be read: it is nested too deeply, or has characters that no text has"
        raise UsageError(what, "write shorter expressions, in plain UTF-8 text") from error


def _targets(statement: ast.stmt) -> list[str]:
    """Returns the names that a statement assigns to; none if it is no plain assignment."""
    match statement:
        case ast.Assign(targets=targets) if all(isinstance(target, ast.Name) for target in targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return [name]
    return []


class _Reader:
    """Evaluates statements, with the names seen so far and the rest of the allowed size."""

    def __init__(self, file: str, lines: Mapping[str, int]) -> None:
        self.file = file
        self.lines = lines
        self.names: dict[str, Any] = {}
        self.left = MAX_SIZE

    def read(self, statement: ast.stmt) -> Iterator[Assignment]:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):
                return
            case ast.Assign(value=expression) | ast.AnnAssign(value=ast.expr() as expression):
                names = _targets(statement)
                if not names:
                    self._refuse(statement, "an assignment to something else than a name")
            case _:
                self._refuse(statement)
        value = self._top(expression)
        for name in names:
            self.names[name] = value
            yield Assignment(name, value, statement.lineno)

    def _top(self, node: ast.expr) -> Any:
        try:
            return self.value(node)
        except RecursionError:
            self._fail(node, "the expression is nested too deeply", "write it in several lines")

    def value(self, node: ast.expr) -> Any:
        """Evaluates an expression within the limits. Raises UsageError."""
        try:
            value = self._evaluate(node)
            self.left -= measure(value)
        except (TypeError, ValueError, ArithmeticError, LookupError) as error:
            what = f"this cannot be worked out: {_reason(error)}"
            self._fail(node, what, "write the value itself", NotComputed)
        if self.left < 0:
            self._fail(node, "the values are too large", f"keep all of them under {MAX_SIZE} characters")
        if not isinstance(value, (*_SCALARS, list, tuple, dict, set)):
            self._fail(node, "this is neither text, number, list nor table", "put it into quotes")
        return value

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return self.names[name] if name in self.names else self._undefined(node, name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                number = self.value(operand)
                return -number if isinstance(op, ast.USub) else +number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self._binary(op, self.value(left), self.value(right))
            case ast.Subscript(value=container, slice=index) if not isinstance(index, ast.Slice):
                return self.value(container)[self.value(index)]
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                if not 0 < len(arguments) <= _MOST_VALUES.get(name, MAX_SIZE):
                    raise ValueError(f"{name} of {many(len(arguments), 'value')}")
                return _FUNCTIONS[name](*[self.value(argument) for argument in arguments])
            case ast.JoinedStr(values=parts):
                return "".join([self.value(part) for part in parts])
            case ast.FormattedValue(value=inner, conversion=conversion, format_spec=spec):
                return _format(_CONVERSIONS[conversion](self.value(inner)), self.value(spec) if spec else "")
        return self._container(node)

    def _container(self, node: ast.expr) -> Any:
        match node:
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple([self.value(item) for item in items])
            case ast.Set(elts=items):
                return {self.value(item) for item in items}
            case ast.Dict(keys=keys, values=values):
                return {
                    self._key(node, key): self.value(item) for key, item in zip(keys, values, strict=True)
                }
        return self._refuse(node)

    def _key(self, node: ast.expr, key: ast.expr | None) -> Any:
        return self._refuse(node, "a ** inside a dictionary") if key is None else self.value(key)

    def _binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Refuses before it computes: the result may be far larger than the operands."""
        if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
            _limit(left.bit_length() * max(right, 0), MAX_BITS)
        if isinstance(op, ast.Mult):
            _limit(_repeated(left, right), self.left)
        if isinstance(op, ast.Mod) and isinstance(left, str):
            return _percent(left, right)
        return _OPERATORS[type(op)](left, right)

    def _undefined(self, node: ast.expr, name: str) -> NoReturn:
        line = self.lines.get(name)
        if line is None:
            self._fail(node, f"{name} is not defined", "define it above, or put it into quotes if it is text")
        self._fail(node, f"{name} is used before it is defined (line {line})", "move its definition up")

    def _refuse(self, node: ast.AST, what: str = "") -> NoReturn:
        what = what or _WHAT.get(type(node), "this")
        fix = f"write NAME = value, the value itself: {_ALLOWED}"
        self._fail(node, f"{what} is not allowed: a config is data, it is not run", fix)

    def _fail(self, node: ast.AST, what: str, fix: str, kind: type[UsageError] = UsageError) -> NoReturn:
        raise kind(f"{self.file}:{getattr(node, 'lineno', 1)}: {what}", fix)


class Formula:
    """An expression as a config may have it, of names in braces; `names` has those."""

    def __init__(self, text: str) -> None:
        """Raises ValueError if it is none."""
        self.names = tuple(dict.fromkeys(_PLACEHOLDER.findall(text)))
        source = _PLACEHOLDER.sub(lambda found: f"(value_{self.names.index(found[1])})", text)
        try:
            (statement,) = _parse(f"_ = (\n{source}\n)", "").body
        except (UsageError, ValueError) as error:
            raise ValueError(f"{short(text)} cannot be read") from error
        assert isinstance(statement, ast.Assign)
        self._expression = statement.value
        try:
            self(dict.fromkeys(self.names, 1.5))
        except ValueError as error:
            if not isinstance(error.__cause__, NotComputed):  # another value may do
                raise

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Returns what it comes to; texts that are numbers count as numbers. Raises ValueError."""
        reader = _Reader("", {})
        reader.names = {f"value_{n}": number_of(values[name]) for n, name in enumerate(self.names)}
        try:
            return reader.value(self._expression)
        except UsageError as error:
            raise ValueError(error.what.partition(": ")[2]) from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def number_of(value: Any) -> Any:
    """Returns a text that is a number as that number (tables have texts only), and anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}([.][0-9]{1,18})?\s*", value, re.ASCII):
        return float(value) if "." in value else int(value)
    return value


def _round(value: Any, digits: Any) -> Any:
    """As `round`. Bounds the digits: a whole number rounded to -10**9 of them takes all memory."""
    if digits is not None and abs(digits) > 20:
        raise ValueError("more than 20 digits")
    return round(value, digits)


def _limit(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError("the result is too large")


def _repeated(left: Any, right: Any) -> int:
    """Returns the size of `left * right` if that repeats a text or list; 0 for numbers."""
    if isinstance(left, int):
        left, right = right, left
    repeats = isinstance(left, (str, list, tuple)) and isinstance(right, int)
    return measure(left) * max(right, 0) if repeats else 0


def _percent(template: str, values: Any) -> str:
    """Computes `template % values`. Refuses `%(name)s`: its brackets could hide a width from the check."""
    if isinstance(values, dict):
        raise TypeError("%(name)s is not supported, an f-string is")
    if re.search(_PERCENT_WIDTH, template):
        raise ValueError("a width of more than two digits")
    return str(template % values)


def _format(value: Any, spec: str) -> str:
    if re.search(_FORMAT_WIDTH, spec):
        raise ValueError("a width of more than two digits")
    return format(value, spec)


def _reason(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else _one_line(str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _read_toml(text: str, name: str) -> Iterator[Assignment]:
    import tomllib

    lines = enumerate(text.split("\n"), 1)
    if crowded := next((number for number, line in lines if line.count(".") > MAX_DOTS), None):
        what = f"{name}:{crowded}: this cannot be read: more than {MAX_DOTS} dots in a line"
        raise UsageError(what, "write it in several lines")
    try:
        table = tomllib.loads(text)
        if measure(table) > MAX_SIZE:
            raise ValueError("the values are too large")
    except (ValueError, RecursionError) as error:
        at = re.search(r" \(at line (\d+).*\)| \(at end.*\)", str(error))
        line = at[1] if at and at[1] else text.count("\n") + 1 if at else 1
        why = str(error).replace(at[0] if at else "", "")
        what = f"{name}:{line}: this cannot be read as TOML: {_one_line(why)}"
        raise UsageError(what, "correct this line") from error
    places = _toml_lines(text)
    for key, value in table.items():
        yield Assignment(key, value, places.get(key, 1))  # 1: the key is written in a form not looked for


_TOML_KEY = re.compile(r"""[ \t]*+\[*+[ \t]*+(?:"([^"]*+)"|'([^']*+)'|([\w-]++))[ \t]*+[].=]""")


def _toml_lines(text: str) -> dict[str, int]:
    """Finds the line in which each key of a TOML text is first set."""
    places: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if found := _TOML_KEY.match(line):
            places.setdefault(found[1] or found[2] or found[3] or "", number)
    return places


def clean_text(value: str) -> str:
    """Returns the same text. Raises ValueError if no environment, file name or message could hold it."""
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{short(value)} has a character that no text can have")
    return value


def environment_text(value: Any) -> str:
    """Formats a value for the environment: lists and tables as JSON, the rest as Python does (`True`)."""
    if not isinstance(value, (list, tuple, set, dict)):
        return str(value)
    import json

    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def short(value: object) -> str:
    """Formats a value for a message: on one line, cut to 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
