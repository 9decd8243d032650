r"""Compiles `{name}` placeholders in COMMAND, INPUTS and OUTPUT, and fills them with a job's values.

Compiled once, filled for each job, by `fit` (checks) and workers. What follows is a promise:

* `{name}` is a placeholder unless `$` stands before it (`${HOME}` is the shell's); a name may have spaces
  inside (`{Sample ID}`). `{{` is a brace, and so is the `}}` that closes it. Every other brace is text:
  `awk '{ print $1 }'`, `'{print NR}'`, `find … {} +`, nested JSON.
* Whether a shell runs the command depends on the command's text alone, never on a value.
* In the shell a value is data wherever it stands: bare, in either kind of quotes, in `$(…)`, in the script
  of `sh -c`, `eval` or `trap`. It stands in single quotes of its own, so nothing in it can be syntax.
* Where no quotes would hold it (backticks, here-documents, `${…}`, `$((…))`) the template is refused.
* In code that is not the shell's own (behind `-c` or `-e` of an interpreter, the program of awk and sed, what
  a pipe feeds to a shell; `programs` has the table) the template is refused. The job's keys are in the
  environment too: `variables`.
* A word that begins with a value is never an option: a value that begins with a dash and is no number is
  refused, unless `--` stands before the word, or the config has ALLOW_DASH.

Not held: what a program does with its words (`ssh host {v}`, `make OUT={v}`, `x={v}; eval "$x"`), an
expansion (`$PROGRAM {v}`); and a value that is the program (`{v} …`) or the whole inner script (`sh -c {v}`:
a program of that name is looked for).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol

from ...errors import UsageError
from ...words import nearest
from ..config import Config
from .programs import SCRIPT, Rule, judge, taken_for_options
from .shell import EXPANDED, MARK, MARKS, Refused, Script, Word, escaped, programs, render

TRUSTED = frozenset({"input_dir", "output_dir", "work_dir", "shared_dir", "job_id", "attempt"})
"""Names whose values are ours and not the job file's: they may stand in code; no job key may have them."""

MAX_ARGUMENT = 131_071  # maximum bytes of one argument of a program (MAX_ARG_STRLEN of Linux, less its NUL)

_AWK = "print|printf|return|exit|delete|getline"  # `{print NR}` is code
_NAME = rf"(?!(?:{_AWK}) )[A-Za-z_][A-Za-z0-9_.-]*(?: [A-Za-z0-9_.-]+)*"
_BRACES = re.compile(rf"\$\{{|\{{\{{|\}}\}}|\{{({_NAME})\}}")
_NEVER = re.compile(f"\0|{MARK}")
_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_DASHES = "write -- before it, ./ or --option= in front of it, or ALLOW_DASH = True if options are meant"


class Template:
    """Text with placeholders (INPUTS, OUTPUT). Values go in as they are; `names` are the placeholders."""

    def __init__(self, text: str, where: str = "template") -> None:
        self.text = text
        self._filler = _Filler(*_marked(text, where))
        self.names = self._filler.names
        self.holes, self.format = self._filler.holes, self._filler.format
        """The names in the order of the text, and the text for `%` with a value for each."""

    def fill(self, values: Mapping[str, Any]) -> str:
        """Returns the text with the values in place. Raises UsageError for a name that `values` lacks."""
        try:
            return self._filler.fill(values)
        except KeyError as error:
            raise _unknown(error.args[0], values, self.text) from None


class CommandTemplate:
    """COMMAND, compiled: `names` are its placeholders, `shell` tells whether /bin/sh runs it.

    Raises UsageError where the text is empty, its quotes do not pair, or a placeholder stands where no
    value can be made safe. Values of the names in `trusted` may stand in code. `allow_dash`: a value may be
    an option.
    """

    def __init__(
        self, text: str, where: str = "COMMAND", trusted: Iterable[str] = TRUSTED, *, allow_dash: bool = False
    ) -> None:
        marked, names = _marked(text.strip(), where)
        if not marked:
            raise UsageError(f"{where}: is empty", "give the command that processes one job")
        free = frozenset(trusted)
        compiled = _Compiled(marked, where, names, free)
        self.text = text
        self.where = where
        self.shell = compiled.shell
        self.programs = compiled.programs
        """Programs that it starts by name, as far as reading tells."""
        self._fillers = [_Filler(argument, names) for argument in compiled.arguments]
        self.names = frozenset[str]().union(*(filler.names for filler in self._fillers))
        self._guards = [
            (rule, name, re.compile(rule.pattern).fullmatch) for rule, name in dict.fromkeys(compiled.guards)
        ]
        self._first = [] if allow_dash else [_Filler(word, names) for word in dict.fromkeys(compiled.first)]

    @property
    def guarded(self) -> bool:
        """Whether every value has to be checked, and not just those that are empty or begin with a dash."""
        return bool(self._guards)

    def check(self, values: Mapping[str, Any]) -> None:
        """Raises UsageError if these values cannot or must not go into the command."""
        self.argv(values)

    def argv(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the arguments to execute, the program first. Raises UsageError as `check` does."""
        try:
            for rule, name, harmless in self._guards:
                if not harmless(_text(values[name])):
                    raise self._broken(rule, name, _text(values[name]))
            for word in self._first:
                if word.fill(values)[:1] == "-":
                    self._check_dash(word, values)
            filled = [filler.fill(values) for filler in self._fillers]
        except KeyError as error:
            raise _unknown(error.args[0], values, self.where) from None
        for argument in filled:
            if "\0" in argument or len(argument) > MAX_ARGUMENT or not argument.isascii():
                self._measure(argument, values)
        return ["/bin/sh", "-c", *filled] if self.shell else filled

    def _broken(self, rule: Rule, name: str, text: str) -> UsageError:
        """Returns the error for a value against a rule."""
        what = f"{self.where}: {{{name}}} stands {rule.place} and its value could be taken as code: "
        what += _shown(text)
        return UsageError(what, f"{rule.fix}, or {_READ_JOB}".replace("{x}", f"{{{name}}}"))

    def _check_dash(self, word: _Filler, values: Mapping[str, Any]) -> None:
        """Raises UsageError for a word that would begin with a dash, and not with a negative number."""
        filled = word.fill(values)
        name = next((name for name in word.holes if _text(values[name])), word.holes[0])
        if not (_NUMBER.fullmatch(filled) or _NUMBER.fullmatch(_text(values[name]))):
            what = f"{self.where}: {{{name}}} begins a word, and its value could be taken for an option: "
            raise UsageError(what + _shown(filled), _DASHES)

    def _measure(self, argument: str, values: Mapping[str, Any]) -> None:
        """Raises UsageError for an argument that the system would not take."""
        if "\0" in argument:
            held = ", ".join(f"{{{name}}}" for name in sorted(self.names) if "\0" in _text(values[name]))
            raise UsageError(f"{self.where}: {held} holds a NUL, and no argument can", _READ_JOB)
        try:
            size = len(os.fsencode(argument))
        except UnicodeEncodeError:
            raise UsageError(f"{self.where}: a value has a lone surrogate in it", _READ_JOB) from None
        if size > MAX_ARGUMENT:
            what = f"{self.where}: an argument of {size:,} bytes, and Linux takes {MAX_ARGUMENT:,}"
            raise UsageError(what, _READ_JOB)


def _shown(text: str) -> str:
    return repr(text if len(text) < 60 else text[:57] + "...")


def command_of(config: Config) -> CommandTemplate | None:
    """Compiles a config's COMMAND; None: it has none. Raises UsageError."""
    return CommandTemplate(config.command, allow_dash=config.allow_dash) if config.command else None


_READ_JOB = "let the command read the value from the file that $DS_JOB names"


class Named(Protocol):
    """Whatever has placeholders."""

    @property
    def names(self) -> frozenset[str]:
        """The placeholders."""


MOST_OF_A_VARIABLE = 60_000
"""Maximum length of a name, and of a value, in the environment, in bytes; DS_JOB has longer ones."""

MOST_OF_ALL_VARIABLES = 500_000
"""Maximum length of a job's keys in its environment, in bytes: a process takes 2 MB with its arguments."""

_ROOM_OF_A_VARIABLE = 10  # what a variable takes beside its name and value: "=", an end, and a pointer


def variable_of(name: str) -> str:
    """Returns the environment variable that holds a key of the job."""
    return "DS_KEY_" + re.sub("[^A-Za-z0-9_]", "_", name)


def variables_of(keys: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Returns the keys of a job as environment variables, without those that none can hold."""
    found: dict[bytes, bytes] = {}
    room = MOST_OF_ALL_VARIABLES
    for name, value in keys.items():
        if name == "group" and isinstance(value, dict):  # its keys stand beside it
            continue
        if isinstance(value, str) and len(value) > MOST_OF_A_VARIABLE:
            continue
        try:
            text = os.fsencode(_text(value))
        except UnicodeEncodeError:
            continue
        variable = _encoded(name)
        size = len(variable) + len(text) + _ROOM_OF_A_VARIABLE
        if b"\0" not in text and max(len(text), len(variable)) <= MOST_OF_A_VARIABLE and size <= room:
            found[variable] = text
            room -= size
    return found


@cache  # mostly all jobs have the same keys
def _encoded(name: str) -> bytes:
    return variable_of(name).encode()


def check_variables(names: Iterable[str]) -> None:
    """Raises UsageError if two keys of a job would have one environment variable."""
    seen: dict[str, str] = {}
    for name in names:
        variable = variable_of(name)
        if (other := seen.setdefault(variable, name)) != name:
            what = f"the keys {other} and {name} of a job would both be the environment variable {variable}"
            raise UsageError(what, "give one of them another name: letters, digits and _ are kept")


def check_names(template: Named, available: Iterable[str], where: str) -> None:
    """Raises UsageError for a placeholder that is not among the names in `available`."""
    known = set(available)
    missing = sorted(template.names - known)
    if missing:
        raise _unknown(missing[0], known, where)


def _unknown(name: str, known: Iterable[str], where: str) -> UsageError:
    near = nearest(name, known)
    hint = f": did you mean {{{near}}}?" if near else ""
    fix = f"name a key of the job, or write {{{{{name}}}}} where the braces themselves are meant"
    return UsageError(f"{where}: {{{name}}} is not a key of the job{hint}", fix)


# -- Compiling ----------------------------------------------------------------------------------------------


def _marked(text: str, where: str) -> tuple[str, dict[str, str]]:
    """The text with a mark for each placeholder and its doubled braces undone; the marks' names."""
    if _NEVER.search(text):
        raise UsageError(f"{where}: holds a NUL character or half a surrogate pair", "remove it")
    names: dict[str, str] = {}
    opened = 0

    def replaced(match: re.Match[str]) -> str:
        nonlocal opened
        found = match.group()
        if match[1]:
            found = chr(0xD800 + len(names))
            names[found] = match[1]
        elif found == "{{":
            found, opened = "{", opened + 1
        elif found == "}}" and opened:
            found, opened = "}", opened - 1
        return found

    marked = _BRACES.sub(replaced, text)
    if len(names) > 1024:
        raise UsageError(f"{where}: more than 1,024 placeholders", "write a script file")
    return marked, names


class _Compiled:
    """A command's arguments with their marks (or the one script, for the shell), and its guards."""

    def __init__(self, text: str, where: str, names: Mapping[str, str], free: frozenset[str]) -> None:
        self.guards: list[tuple[Rule, str]] = []
        self.first: list[str] = []
        self._names, self._free = names, free
        try:
            script = self._read(text, where)
        except Refused:
            if names:
                raise
            self.shell, self.arguments, self.programs = True, [text], list[str]()
        else:
            self.shell = script.needs_shell
            self.programs = programs(script)
            words = [word.script if word.script is not None else word.plain for word in script.words]
            self.arguments = [render(script.parts)] if self.shell else words

    def _read(self, text: str, where: str) -> Script:
        """Read a script, and all inner scripts that values stand in."""
        script = Script(text, where, self._names)
        for command in script.commands if self._names else ():
            for word, rule in judge(command, script.words if script.feeds else ()):
                if rule is not SCRIPT:
                    self._guard(script, word, rule)
                elif word.marks:
                    self._nest(script, word, where)
            self.first += [
                word.plain.replace(EXPANDED, "")
                for word in taken_for_options(command)
                if self._names[word.marks[0]] not in self._free
            ]
        return script

    def _guard(self, script: Script, word: Word, rule: Rule) -> None:
        names = [self._names[mark] for mark in word.marks if self._names[mark] not in self._free]
        if names and not rule.pattern:
            name = names[0]
            fix = f"read the variable {variable_of(name)} there, or pass {{{name}}} as an argument after it"
            script.refuse(f"{{{name}}} stands {rule.place}", fix)
        self.guards += [(rule, name) for name in names]

    def _nest(self, script: Script, word: Word, where: str) -> None:
        name = self._names[word.marks[0]]
        if EXPANDED in word.plain:
            fix = "put the inner script into single quotes"
            script.refuse(f"{{{name}}} and an expansion in one inner script", fix)
        word.script = render(self._read(word.plain, f"{where}, inner script").parts)


# -- Filling ------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """Formats a value as text: strings as they are, None as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    if type(value) is int:  # as JSON has it, and quicker: numbers are the most common keys
        return str(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class _Filler:
    """Literal text and holes for values, each inside so many single quotes, ready to be joined."""

    def __init__(self, marked: str, names: Mapping[str, str]) -> None:
        self._pieces: list[str] = []
        self._holes: list[tuple[int, str, int]] = []
        last = 0
        for mark in MARKS.finditer(marked):
            self._holes.append((len(self._pieces) + 1, names[mark[1]], len(mark[0]) - 1))
            self._pieces += marked[last : mark.start()], ""
            last = mark.end()
        self._pieces.append(marked[last:])
        self.holes = tuple(name for _, name, _ in self._holes)
        self.names = frozenset(self.holes)

    @property
    def format(self) -> str:
        """The text for `%`, with a value for each hole."""
        return "%s".join(piece.replace("%", "%%") for piece in self._pieces[::2])

    def fill(self, values: Mapping[str, Any]) -> str:
        if not self._holes:
            return self._pieces[0]
        pieces = self._pieces.copy()
        for place, name, depth in self._holes:
            value = values[name]
            text = value if type(value) is str else _text(value)
            if depth and "'" in text:
                for _ in range(depth):
                    text = escaped(text)
            pieces[place] = text
        return "".join(pieces)
