r"""Placeholders: `{name}` in COMMAND, INPUTS and OUTPUT, and how a command is made of a job's values.

Compiled once, filled for each job. What follows is a promise:

* `{name}` is a placeholder unless `$` stands before it (`${HOME}` is the shell's). `{{` is a brace, and so
  is the `}}` that closes it. Every other brace is text: `awk '{ print $1 }'`, `find … {} +`, nested JSON.
* Whether a shell runs the command depends on the command's text alone, never on a value.
* In the shell a value is data wherever it stands: bare, in either kind of quotes, in `$(…)`, in the script
  of `sh -c`, `eval` or `trap`. It stands in single quotes of its own, so nothing in it can be syntax.
* Where a value cannot be made safe the template is refused when it is compiled: in backticks, in a
  here-document, in `${…}`, `$'…'`, `((…))`, `[[ … ]]`.
* Where a value becomes code of another language (`python -c`, an awk program) or a number for the shell
  (`$((…))`), only harmless characters are let through: `CommandTemplate.check` refuses the job otherwise.

Not held: what the command itself does with a value later (`x={v}; eval "$x"`, `make OUT={v}`) or has an
expansion do with it (`$PROGRAM {v}`); a value that is the program (`{v} …`) or the whole inner script
(`sh -c {v}`: a program of that name is looked for); and a value that begins with `-`, which a program may
take for an option: write `--` or `./` before it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from .errors import UsageError

TRUSTED = frozenset({"input_dir", "output_dir", "work_dir", "job_id", "attempt"})
"""Names whose values are ours and not the job file's: they may stand in code."""

MAX_ARGUMENT = 131_071
"""Bytes that one argument of a program can have (MAX_ARG_STRLEN of Linux, less its NUL)."""

_BRACES = re.compile(r"\$\{|\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_.-]*)\}")
_HOLE = "\0"
"""Stands for a placeholder while a text is read: no text that gets here can hold a NUL."""


class _Hole(NamedTuple):
    """A place for a value, inside `depth` levels of single quotes."""

    name: str
    depth: int


_Part = str | _Hole


class _Source(NamedTuple):
    """A text with each placeholder as one NUL, their names in order, and where each character stood."""

    text: str
    names: list[str]
    at: list[int]


def _split(text: str, where: str) -> _Source:
    """Find the placeholders of a text and undouble its doubled braces."""
    if _HOLE in text:
        raise UsageError(f"{where}: holds a NUL character", "remove it")
    pieces: list[str] = []
    at: list[int] = []
    names: list[str] = []
    last = opened = 0
    for match in _BRACES.finditer(text):
        found = match.group()
        if match.group(1):
            names.append(match.group(1))
            found = _HOLE
        elif found == "{{":
            found, opened = "{", opened + 1
        elif found == "}}" and opened:
            found, opened = "}", opened - 1
        pieces += text[last : match.start()], found
        at += [*range(last, match.start()), *range(match.start(), match.start() + len(found))]
        last = match.end()
    pieces.append(text[last:])
    return _Source("".join(pieces), names, [*at, *range(last, len(text) + 1)])


def _value(value: Any) -> str:
    """A value as text: strings as they are, None as nothing, everything else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


class Template:
    """Text with placeholders (INPUTS, OUTPUT). Values go in as they are; `names` are the placeholders."""

    def __init__(self, text: str, where: str = "template") -> None:
        source = _split(text, where)
        self.text = text
        self.names = frozenset(source.names)
        self._filler = _Filler(_with_holes(source.text, iter(source.names), 0))

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text with the values in place. Raises UsageError for a name that `values` does not have."""
        try:
            return self._filler.fill(values)
        except KeyError as error:
            raise _unknown(error.args[0], values, self.text) from None


class CommandTemplate:
    """COMMAND, compiled: `names` are its placeholders, `shell` tells whether /bin/sh runs it.

    Raises UsageError where the text is empty, its quotes do not pair, or a placeholder stands where no
    value can be made safe. Values of the names in `trusted` may stand in code.
    """

    def __init__(self, text: str, where: str = "COMMAND", trusted: Iterable[str] = TRUSTED) -> None:
        source = _split(text.strip(), where)
        if not source.text:
            raise UsageError(f"{where}: is empty", "give the command that processes one job")
        self.text = text
        self.where = where
        script = _Script(source, where)
        arguments = _arguments(script, source)
        self.shell = script.needs_shell
        self.names = frozenset(part.name for parts in arguments for part in parts if isinstance(part, _Hole))
        self._fillers = [_Filler(parts) for parts in arguments]
        free = frozenset(trusted)
        guards = (guard for guard in script.guards if guard.rule.always or guard.name not in free)
        self._guards = [(g, g.name, re.compile(g.rule.pattern).fullmatch) for g in dict.fromkeys(guards)]

    @property
    def guarded(self) -> bool:
        """Whether some value stands in code, so that every job's values have to be checked."""
        return bool(self._guards)

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise UsageError if these values cannot or must not go into the command."""
        self.argv(values)

    def argv(self, values: Mapping[str, Any]) -> list[str]:
        """The arguments to execute, the program first. Raises UsageError as `check` does."""
        try:
            for guard, name, harmless in self._guards:
                if not harmless(_value(values[name])):
                    raise guard.broken(_value(values[name]), self.where)
            filled = [filler.fill(values) for filler in self._fillers]
        except KeyError as error:
            raise _unknown(error.args[0], values, self.where) from None
        for argument in filled:
            if _HOLE in argument or len(argument) > MAX_ARGUMENT or not argument.isascii():
                self._measure(argument, values)
        return ["/bin/sh", "-c", *filled] if self.shell else filled

    def _measure(self, argument: str, values: Mapping[str, Any]) -> None:
        """Raise UsageError for an argument that the system would not take."""
        if _HOLE in argument:
            held = ", ".join(f"{{{name}}}" for name in sorted(self.names) if _HOLE in _value(values[name]))
            raise UsageError(
                f"{self.where}: {held} holds a NUL, and no command line can carry one", _READ_JOB
            )
        try:
            size = len(os.fsencode(argument))
        except UnicodeEncodeError:
            raise UsageError(
                f"{self.where}: a value is not valid Unicode (a lone surrogate)", _READ_JOB
            ) from None
        if size > MAX_ARGUMENT:
            what = f"{self.where}: an argument of {size:,} bytes, and Linux takes {MAX_ARGUMENT:,}"
            raise UsageError(what, _READ_JOB)


_READ_JOB = "let the command read the value from the file that $DS_JOB names"


def check_names(template: Template | CommandTemplate, available: Iterable[str], where: str) -> None:
    """Raise UsageError for a placeholder that is not among the names in `available`."""
    known = set(available)
    missing = sorted(template.names - known)
    if missing:
        raise _unknown(missing[0], known, where)


def _unknown(name: str, known: Iterable[str], where: str) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), 1)
    hint = f": did you mean {{{close[0]}}}?" if close else ""
    fix = f"name a key of the job, or write {{{{{name}}}}} where the braces themselves are meant"
    return UsageError(f"{where}: {{{name}}} is not a key of the job{hint}", fix)


# -- Filling ------------------------------------------------------------------------------------------------


class _Filler:
    """Literal text and holes, ready to be joined."""

    def __init__(self, parts: Iterable[_Part]) -> None:
        merged = _merge(parts)
        self._pieces = [part if isinstance(part, str) else "" for part in merged]
        self._holes = [(i, *part) for i, part in enumerate(merged) if isinstance(part, _Hole)]

    def fill(self, values: Mapping[str, Any]) -> str:
        pieces = self._pieces.copy()
        for place, name, depth in self._holes:
            value = values[name]
            text = value if type(value) is str else _value(value)
            if depth and "'" in text:
                for _ in range(depth):
                    text = _escape(text)
            pieces[place] = text
        return "".join(pieces)


def _escape(text: str) -> str:
    """Text for inside single quotes. No backslash: some locales take one for half of a character."""
    return text.replace("'", "'\"'\"'")


def _merge(parts: Iterable[_Part]) -> list[_Part]:
    merged: list[_Part] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _with_holes(text: str, names: Iterator[str], depth: int) -> list[_Part]:
    """Text with NULs as parts."""
    first, *others = text.split(_HOLE)
    parts: list[_Part] = [first]
    for other in others:
        parts += _Hole(next(names), depth), other
    return [part for part in parts if part != ""]


def _quoted(parts: Iterable[_Part]) -> list[_Part]:
    """A rendered script as one word of the shell around it."""
    inner = (_escape(p) if isinstance(p, str) else _Hole(p.name, p.depth + 1) for p in parts)
    return ["'", *inner, "'"]


# -- What a value in code may be ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """Values that may stand in a place: `pattern` matches all of them; `always`: trusted names too."""

    place: str
    pattern: str
    fix: str
    always: bool = False


class _Guard(NamedTuple):
    """A rule for the values of one placeholder."""

    name: str
    rule: _Rule

    def broken(self, text: str, where: str) -> UsageError:
        """What to say about a value against the rule."""
        shown = repr(text if len(text) < 60 else text[:57] + "...")
        what = f"{where}: {{{self.name}}} stands {self.rule.place} and its value could be taken as code"
        return UsageError(f"{what}: {shown}", self.rule.fix.replace("{x}", f"{{{self.name}}}"))


_SAFE = r"[A-Za-z0-9_.,:@%+=/-]*"
_NUMBER = _Rule("inside shell arithmetic", r"-?[0-9]+", "give {x} a whole number", always=True)
_NAME = _Rule("where the shell expects a variable's name", _SAFE, "assign it to a variable: v={x}")
_REMOTE = _Rule("in words that another shell reads", _SAFE, f"write it into a file, or {_READ_JOB}")
_UNKNOWN = _Rule(
    "after -c or -e of a program that the command computes", _SAFE, "name the program in the command"
)
_STDIN = _Rule(
    "in a script that a pipe feeds to an interpreter", _SAFE, f"pass {{x}} as an argument, or {_READ_JOB}"
)
_NO_DASH = _Rule("where a program expects an option", r"(?s:[^+-].*)?", "write -- or ./ before {x}")


@dataclass(frozen=True)
class _Language:
    """How an interpreter is given code on its command line.

    `code` are the letters (and `long` the long options) after which code stands; `takes` are letters that
    eat the rest of their word or the next one, `suffix` those that eat only the rest; after `ends` all is
    data. `operand`: the first operand is the code, unless an option in `files` or `code` gives it. `stops`:
    after code all is data. `permutes`: options count after operands too.
    """

    label: str
    programs: str
    code: str
    example: str
    long: tuple[str, ...] = ()
    takes: str = ""
    suffix: str = ""
    ends: str = ""
    files: str = ""
    operand: bool = False
    stops: bool = False
    permutes: bool = False

    @property
    def rule(self) -> _Rule:
        fix = f"pass it as an argument: {self.example}; or {_READ_JOB}"
        return _Rule(f"inside {self.label} code", _SAFE, fix)


# fmt: off
_LANGUAGES = (
    _Language("Python", r"i?(?:python|pypy)[0-9.]*[a-z]?", "c", "python -c '… sys.argv[1] …' {x}",
              takes="WX", ends="m", stops=True),
    _Language("Perl", r"perl[0-9.]*", "eE", "perl -e '… $ARGV[0] …' -- {x}", takes="I", suffix="iMmFDx"),
    _Language("Ruby", r"j?ruby[0-9.]*", "e", "ruby -e '… ARGV[0] …' -- {x}", takes="ICr", suffix="iFKWx"),
    _Language("JavaScript", r"node(?:js)?[0-9]*|bun|deno", "ep", "node -e '… process.argv[1] …' -- {x}",
              ("eval", "print", "require", "import"), takes="rC"),
    _Language("R", r"Rscript|R", "e", "Rscript script.R {x}", takes="gfd"),
    _Language("PHP", r"php[0-9.]*", "rBRE", "php -r '… $argv[1] …' -- {x}", takes="dczft"),
    _Language("Lua", r"lua(?:jit)?[0-9.]*", "e", "lua -e '…' script.lua {x}", takes="l"),
    _Language("Julia", r"julia[0-9.]*", "eE", "julia -e '… ARGS[1] …' -- {x}", ("eval", "print"),
              takes="LJptCH"),
    _Language("Octave", r"octave(?:-cli)?[0-9.]*", "", "octave script.m {x}", ("eval",), permutes=True),
    _Language("MATLAB", r"matlab", "r", "X={x} matlab -batch \"… getenv('X') …\"", ("batch",), permutes=True),
    _Language("ImageJ", r"(?i:fiji|imagej).*", "", "a macro's file, with {x} after it", ("eval",),
              permutes=True),
    _Language("shell", r"fish|t?csh|pwsh|powershell|nu|xonsh|elvish", "cC", "sh -c '… \"$1\" …' _ {x}",
              ("command",), permutes=True),
    _Language("script", r"groovy|scala|guile|racket|elixir|ghc|tclsh", "ec",
              "a script's file, with {x} after it", permutes=True),
    _Language("awk", r"[gmn]?awk|original-awk", "e", "awk -v x={x} '…'", ("source",),
              takes="FvfilEW", files="fE", operand=True),
    _Language("sed", r"g?sed", "e", "awk -v x={x} '…'", ("expression",),
              takes="fl", suffix="i", files="f", operand=True, permutes=True),
)
# fmt: on
_SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "lksh", "ash", "yash", "rbash"])
_SCRIPT_AFTER_C = frozenset(["su", "runuser", "script", "flock", "sg"])
_REMOTES = frozenset(["ssh", "parallel", "watch", "tmux", "screen", "at", "batch", "sbatch"])
"""Programs that give some or all of their words to a shell."""

_WRAPPERS = frozenset(
    ["sudo", "doas", "nice", "ionice", "timeout", "xargs", "setsid", "stdbuf", "chroot", "taskset", "find"],
).union(["srun", "mpirun", "mpiexec", "unshare", "numactl", "parallel", "busybox", "strace"])
"""Programs that start the one named further on among their words."""

_KEYWORDS = frozenset(
    ["if", "then", "elif", "else", "fi", "while", "until", "do", "done", "{", "}", "!", "time", "esac"]
)
_BUILTINS = _KEYWORDS.union(
    [".", ":", "alias", "bg", "bind", "break", "builtin", "caller", "case", "cd", "command", "continue"],
    ["coproc", "declare", "dirs", "disown", "enable", "eval", "exec", "exit", "export", "fc", "fg", "for"],
    ["function", "getopts", "hash", "history", "in", "jobs", "let", "local", "logout", "mapfile", "popd"],
    ["pushd", "read", "readarray", "readonly", "return", "select", "set", "shift", "shopt", "source"],
    ["suspend", "times", "trap", "type", "typeset", "ulimit", "umask", "unalias", "unset", "wait"],
)
_NAMING = frozenset(
    ["let", "declare", "typeset", "unset", "read", "readarray", "mapfile", "getopts", "wait"],
).union(["local", "export", "readonly"])
"""Builtins that take variables' names: bash runs the `$(…)` of an array index in them."""

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_INDEXED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\[")
_SED_BODY = r"(?:\\[^\0]|(?!\1)[^\\\n])*"
_SED = re.compile(
    r"(?:\s*(?:[0-9]+|\$|/(?:\\[^\0]|[^/\\\n])*/)?!?\s*"
    rf"(?:[dpq]|s([/|#,:@%+=!~]){_SED_BODY}\1{_SED_BODY}\1[gpiI0-9]*)\s*(?:[;\n]|$))*"
)


def _sed_rule(text: str, opaque: bool, rule: _Rule) -> _Rule:
    """Inside `s/…/…/` or an address a word is data; elsewhere in sed even a letter is a command."""
    if opaque or _SED.fullmatch(text) is None:
        return _Rule(rule.place, "[0-9]+", rule.fix)
    allowed = "".join(c for c in ",:@%+=" if c not in text)
    return _Rule(rule.place, rf"[A-Za-z0-9_.{allowed}-]*", rule.fix)


# -- Reading the shell's language ---------------------------------------------------------------------------


class _Refused(UsageError):
    """A text whose placeholders could not be made safe. Without placeholders it is nobody's business."""


@dataclass(eq=False)
class _Word:
    """A word: as it stands in the script, and as its program receives it (None: the shell expands this)."""

    start: int = 0
    shell: list[_Part] = field(default_factory=list)
    plain: list[_Part | None] = field(default_factory=list)
    script: list[_Part] | None = None
    """Where the word is itself a script: that script, rendered."""

    def add(self, shell: str, plain: str | None) -> None:
        self.shell.append(shell)
        if plain != "":
            self.plain.append(plain)

    def add_hole(self, name: str, before: str, after: str) -> None:
        self.shell += [before, _Hole(name, 1), after]
        self.plain.append(_Hole(name, 0))

    @property
    def head(self) -> str:
        """What the word begins with whatever the values are."""
        head = ""
        for part in self.plain:
            if not isinstance(part, str):
                break
            head += part
        return head

    @property
    def static(self) -> str | None:
        """The word, if it is the same for all jobs."""
        return self.head if all(isinstance(part, str) for part in self.plain) else None

    @property
    def names(self) -> list[str]:
        """Placeholders whose values become part of the word."""
        return [part.name for part in self.plain if isinstance(part, _Hole)]

    @property
    def opaque(self) -> bool:
        return None in self.plain

    @property
    def may_vanish(self) -> bool:
        """Whether it is an expansion, which may turn out as no word at all, or as several."""
        return self.opaque and self.head == ""

    @property
    def led_by_hole(self) -> bool:
        return bool(self.plain) and isinstance(self.plain[0], _Hole)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else _HOLE for part in self.plain if part is not None)

    def rendered(self) -> list[_Part]:
        return self.shell if self.script is None else _quoted(self.script)

    def argument(self) -> list[_Part]:
        return [part for part in self.plain if part is not None] if self.script is None else self.script


@dataclass
class _List:
    """Commands being read, up to the end of the text or the `)` that closes them."""

    nested: bool
    out: list[str | _Word] = field(default_factory=list)
    command: list[_Word] = field(default_factory=list)
    documents: list[tuple[str, bool, bool]] = field(default_factory=list)
    depth: int = 0
    redirect: str = ""
    piped: bool = False
    strings: list[_Word] = field(default_factory=list)
    """Here-strings of the command."""

    def rendered(self) -> list[_Part]:
        parts: list[_Part] = []
        for item in self.out:
            parts += [item] if isinstance(item, str) else item.rendered()
        return parts


_DOCUMENT = re.compile(
    r"[ \t]*(?:'(?P<single>\w+)'|\"(?P<double>\w+)\"|\\(?P<escaped>\w+)|(?P<bare>\w+))(?=[\s|&;()<>]|$)",
    re.ASCII,
)
_REDIRECTION = re.compile(r"<<<|<<-|<<|>>|<&|>&|<>|>\||<|>")
_SPECIAL = "@*#?-$!0123456789"


class _Script:
    """One reader of a shell text: renders it, and collects what its values must keep to.

    Where it is not sure to see what every POSIX shell and bash would see, it refuses.
    """

    def __init__(self, source: _Source, where: str) -> None:
        self.source = source
        self.text = source.text
        self.where = where
        self.guards: list[_Guard] = []
        self.needs_shell = False
        self.testing = False
        self.pos = 0

    def read(self) -> _List:
        """Read all of the text."""
        return self._commands(nested=False)

    # Errors and names

    def _place(self, pos: int) -> str:
        return f"{self.where}, character {self.source.at[min(pos, len(self.source.at) - 1)] + 1}"

    def _unpaired(self, pos: int, what: str) -> NoReturn:
        raise UsageError(f"{self._place(pos)}: {what}", "close it, or write a backslash before it")

    def refuse(self, what: str, fix: str, pos: int | None = None) -> NoReturn:
        raise _Refused(f"{self._place(self.pos if pos is None else pos)}: {what}", fix)

    def _name(self, pos: int) -> str:
        return self.source.names[self.text.count(_HOLE, 0, pos)]

    def _refuse_hole(self, start: int, end: int, place: str, fix: str) -> None:
        hole = self.text.find(_HOLE, start, end)
        if hole >= 0:
            name = self._name(hole)
            self.refuse(f"{{{name}}} stands inside {place}", fix.replace("{x}", f"{{{name}}}"), hole)

    def _restored(self, start: int, end: int) -> str:
        """The text between, with its placeholders written out again."""
        pieces = self.text[start:end].split(_HOLE)
        first = self.text.count(_HOLE, 0, start)
        names = self.source.names[first : first + len(pieces) - 1]
        return pieces[0] + "".join(
            f"{{{name}}}{piece}" for name, piece in zip(names, pieces[1:], strict=True)
        )

    # Commands

    def _commands(self, nested: bool) -> _List:
        """Read commands up to the end, or up to and over the `)` that ends a `$(`."""
        start = self.pos
        state = _List(nested)
        while self.pos < len(self.text):
            if self._step(state):
                return state
        if nested:
            self._unpaired(start - 1, "this parenthesis is never closed")
        self._end_command(state)
        if state.documents:
            self.refuse(
                "a here-document without its text", "end the document with its word on a line of its own"
            )
        return state

    def _step(self, state: _List) -> bool:
        """Read the next blank, comment, operator or word; whether the commands have ended."""
        char = self.text[self.pos]
        if char in " \t":
            self._copy(state, 1)
        elif self.text.startswith("\\\n", self.pos):
            self._copy(state, 2)
        elif char == "#":
            self._comment(state)
        elif char == "\n":
            self._newline(state)
        elif char in "<>" and self.text[self.pos + 1 : self.pos + 2] != "(":
            self._redirection(state)
        elif char in "|&;()":
            return self._operator(state, char)
        else:
            self._take(state, self._word())
        return False

    def _copy(self, state: _List, length: int) -> None:
        state.out.append(self.text[self.pos : self.pos + length])
        self.pos += length

    def _comment(self, state: _List) -> None:
        self.needs_shell = True
        end = self.text.find("\n", self.pos)
        end = len(self.text) if end < 0 else end
        state.out.append(self._restored(self.pos, end))
        self.pos = end

    def _newline(self, state: _List) -> None:
        self._end_command(state)
        self.needs_shell = True
        self._copy(state, 1)
        documents, state.documents = state.documents, []
        for word, tabs, literal in documents:
            self._document(state, word, tabs, literal)

    def _document(self, state: _List, word: str, tabs: bool, literal: bool) -> None:
        """Copy the lines of a here-document."""
        fix = "assign it before (x={x}) and write $x in the document"
        while self.pos < len(self.text):
            end = self.text.find("\n", self.pos)
            end = len(self.text) if end < 0 else end + 1
            line = self.text[self.pos : end].rstrip("\n")
            self._refuse_hole(self.pos, end, "a here-document", fix)
            if line.endswith("\\") and not literal:
                self.refuse("a line of a here-document ends in a backslash", f"quote its word: <<'{word}'")
            self._copy(state, end - self.pos)
            if (line.lstrip("\t") if tabs else line) == word:
                return
        self.refuse(f"a here-document without its end {word}", f"end it with {word} on a line of its own")

    def _redirection(self, state: _List) -> None:
        self.needs_shell = True
        match = _REDIRECTION.match(self.text, self.pos)
        assert match is not None
        self._copy(state, len(match.group()))
        self._refuse_split()
        if match.group() in ("<<", "<<-"):
            self._document_word(state, tabs=match.group() == "<<-")
        else:
            state.redirect = match.group()

    def _refuse_split(self) -> None:
        if self.text.startswith("\\\n", self.pos):
            self.refuse(
                "a line is continued in the middle of an operator", "put a space before the backslash"
            )

    def _document_word(self, state: _List, tabs: bool) -> None:
        match = _DOCUMENT.match(self.text, self.pos)
        if match is None:
            self.refuse("a here-document whose end is not a plain word", "end it with a word like EOF")
        word = next(group for group in match.groups() if group)
        state.documents.append((word, tabs, match["bare"] is None))
        self._copy(state, len(match.group()))

    def _operator(self, state: _List, char: str) -> bool:
        """Read `|`, `&`, `;` or a parenthesis; whether it ends these commands."""
        self.needs_shell = True
        if self.text.startswith("&>", self.pos):
            self.refuse("&> means different things in sh and in bash", "write > file 2>&1")
        if self.text.startswith("((", self.pos):
            self._double_parenthesis()
        self._end_command(state)
        state.piped = char == "|" and not self.text.startswith("||", self.pos)
        if char == ")" and state.nested and state.depth == 0:
            if state.documents:
                self.refuse("a here-document without its text", "begin it on a line of its own")
            self.pos += 1
            return True
        state.depth += (char == "(") - (char == ")")
        self._copy(state, 1)
        if char == "(":
            self._refuse_split()
        if char == "|" and self.text.startswith(("|", "&"), self.pos):
            self._copy(state, 1)
        return False

    def _double_parenthesis(self) -> None:
        """`((` is arithmetic in bash and two subshells elsewhere: no value may stand in it."""
        end = self.text.find("))", self.pos)
        end = len(self.text) if end < 0 else end
        self._refuse_hole(self.pos, end, "((…))", "write ( ( for two subshells, or $(({x})) for arithmetic")

    def _take(self, state: _List, word: _Word) -> None:
        """A word has been read: a redirection's file, its number, or a word of the command."""
        state.out.append(word)
        number = (word.static or "").isdigit() and self.text[self.pos : self.pos + 1] in ("<", ">")
        if state.redirect in (">&", "<&") and word.names:
            # bash expands this word twice, quoted or not
            self.refuse(f"{{{word.names[0]}}} stands behind {state.redirect}", "write > {x} 2>&1", word.start)
        if state.redirect:
            state.strings += [word] if state.redirect == "<<<" else []
            state.redirect = ""
        elif not number:
            state.command.append(word)
        if state.nested and word.static == "case":
            self.refuse("case inside $(…)", "assign its result in the command itself")

    def _end_command(self, state: _List) -> None:
        words, strings = state.command, state.strings
        state.command, state.strings, state.redirect = [], [], ""
        if words:
            _Command(self, words, strings, state.piped).examine()
        state.piped = False

    # Words

    def _word(self) -> _Word:
        """Read one word."""
        word = _Word(self.pos)
        while self.pos < len(self.text):
            char = self.text[self.pos]
            if char in " \t\n|&;()" or (char in "<>" and self.text[self.pos + 1 : self.pos + 2] != "("):
                break
            self._piece(word, char)
        return word

    def _piece(self, word: _Word, char: str) -> None:
        if char == "'":
            self._single(word)
        elif char == '"':
            self._double(word)
        elif char == "\\":
            self._backslash(word)
        elif char in "$`":
            self._expansion(word, quoted=False)
        elif char in "<>":
            self._substitution(word)
        elif char == _HOLE:
            word.add_hole(self._name(self.pos), "'", "'")
            self.pos += 1
        else:
            self.needs_shell = self.needs_shell or char in "*?[]~#!{}"
            word.add(char, char)
            self.pos += 1

    def _single(self, word: _Word) -> None:
        end = self.text.find("'", self.pos + 1)
        if end < 0:
            self._unpaired(self.pos, "this single quote is never closed")
        first = self.text.count(_HOLE, 0, self.pos)
        body = self.text[self.pos + 1 : end]
        word.shell += ["'", *_with_holes(body, iter(self.source.names[first:]), 1), "'"]
        word.plain += _with_holes(body, iter(self.source.names[first:]), 0)
        self.pos = end + 1

    def _double(self, word: _Word) -> None:
        start = self.pos
        word.add('"', "")
        self.pos += 1
        while self.pos < len(self.text):
            char = self.text[self.pos]
            if char == '"':
                word.add('"', "")
                self.pos += 1
                return
            self._double_piece(word, char)
        self._unpaired(start, "this double quote is never closed")

    def _double_piece(self, word: _Word, char: str) -> None:
        if char == "\\":
            self._double_backslash(word)
        elif char in "$`":
            self._expansion(word, quoted=True)
        elif char == _HOLE:
            # Out of the double quotes and in again: then nothing before the value can reach into it.
            word.add_hole(self._name(self.pos), "\"'", "'\"")
            self.pos += 1
        else:
            word.add(char, char)
            self.pos += 1

    def _double_backslash(self, word: _Word) -> None:
        following = self.text[self.pos + 1 : self.pos + 2]
        if following and following in '$`"\\\n':
            word.add("\\" + following, following.strip("\n"))
            self.pos += 2
        else:
            word.add("\\\\", "\\")
            self.pos += 1

    def _backslash(self, word: _Word) -> None:
        following = self.text[self.pos + 1 : self.pos + 2]
        if not following:
            self._unpaired(self.pos, "the text ends in a backslash")
        literal = self._restored(self.pos + 1, self.pos + 2)
        word.add("\\" + literal, literal.strip("\n"))
        self.pos += 2

    # What the shell expands

    def _expansion(self, word: _Word, quoted: bool) -> None:
        self.needs_shell = True
        word.plain.append(None)
        following = self.text[self.pos + 1 : self.pos + 3]
        if self.text[self.pos] == "`":
            self._backticks(word)
        elif following == "((":
            self._arithmetic(word)
        elif following[:1] == "(":
            self._substitution(word)
        elif following[:1] == "{":
            self._parameter(word)
        elif following[:1] == "'" and not quoted:
            self._escapes(word)
        elif following[:1] == "[" or (not quoted and (following == "\\\n" or following[:1] == _HOLE)):
            self.refuse("what this $ means depends on the shell", "write \\$ for the character")
        else:
            length = 2 if following and following[0] in _SPECIAL else 1
            word.shell.append(self.text[self.pos : self.pos + length])
            self.pos += length

    def _copy_to(self, word: _Word, end: int) -> None:
        word.shell.append(self.text[self.pos : end])
        self.pos = end

    def _substitution(self, word: _Word) -> None:
        """`$(…)`, and `<(…)` of bash: commands, read as such."""
        self.needs_shell = True
        word.shell.append(self.text[self.pos : self.pos + 2])
        if self.text[self.pos] != "$":
            word.plain.append(None)
        self.pos += 2
        self._refuse_split()
        word.shell += [*self._commands(nested=True).rendered(), ")"]

    def _backticks(self, word: _Word) -> None:
        end = self.pos + 1
        while self.text[end : end + 1] != "`":
            if end >= len(self.text):
                self._unpaired(self.pos, "this backtick is never closed")
            end += 2 if self.text[end] == "\\" else 1
        self._refuse_hole(self.pos, end, "backticks", "use $(…)")
        self._copy_to(word, end + 1)

    def _arithmetic(self, word: _Word) -> None:
        """`$((…))`: values are bare in it, and must be whole numbers."""
        end, depth = self.pos + 3, 2
        while depth:
            char = self.text[end : end + 1]
            if not char:
                self._unpaired(self.pos, "this $(( is never closed")
            if char in "'\"`\\#" or self.text.startswith(("$(", "<<"), end):
                self.refuse(f"{char} inside $((…))", "compute this part before, in a variable")
            depth += (char == "(") - (char == ")")
            end += 1
        first = self.text.count(_HOLE, 0, self.pos)
        for part in _with_holes(self.text[self.pos : end], iter(self.source.names[first:]), 0):
            if isinstance(part, _Hole):
                self.guards.append(_Guard(part.name, _NUMBER))
                word.shell.append(" ")  # keeps 3-{x} from becoming 3--1
            word.shell.append(part)
        self.pos = end

    def _parameter(self, word: _Word) -> None:
        """`${…}`: quotes mean different things in it to different shells."""
        end, depth = self.pos + 2, 1
        while depth:
            char = self.text[end : end + 1]
            if not char:
                self._unpaired(self.pos, "this ${ is never closed")
            opens = self.text.startswith("${", end)
            self._refuse_hole(end, end + 1, "${…}", "assign it before: x={x}")
            if char in "'\"`\\{" or self.text.startswith("$(", end):
                self.refuse(f"{char} inside ${{…}}", "assign it to a variable before")
            depth += opens - (char == "}")
            end += 2 if opens else 1
        self._copy_to(word, end)

    def _escapes(self, word: _Word) -> None:
        """`$'…'`: bash decodes it, POSIX shells do not."""
        end = self.text.find("'", self.pos + 2)
        if end < 0:
            self._unpaired(self.pos + 1, "this single quote is never closed")
        self._refuse_hole(self.pos, end, "$'…'", "use single or double quotes")
        if self.text[end - 1] == "\\":
            self.refuse("a backslash at the end of $'…'", "use single or double quotes")
        self._copy_to(word, end + 1)


# -- Judging a command --------------------------------------------------------------------------------------


class _Command:
    """The words of one simple command: finds those that something will take as code."""

    def __init__(self, script: _Script, words: list[_Word], strings: list[_Word], piped: bool) -> None:
        self.script = script
        self.strings = strings
        self.piped = piped
        self.all = words
        self.words = self._without_prefix(words)

    def examine(self) -> None:
        """Render inner scripts in place and add guards."""
        self._choose_shell()
        if not self.script.source.names:
            return
        self._refuse_bash()
        self._builtins()
        for index, word in enumerate(self.all):
            self._program(word, self.all[index + 1 :])

    def _without_prefix(self, words: list[_Word]) -> list[_Word]:
        """The command itself: without keywords, assignments, and words like `command` or `exec` before it."""
        start, options = 0, False
        for word in words:
            static = word.static or ""
            if static in ("command", "builtin", "exec", "time", "nohup", "env"):
                options = True
            elif not (
                static in _KEYWORDS or _ASSIGNMENT.match(word.head) or (options and static.startswith("-"))
            ):
                break
            start += 1
        return words[start:]

    def _choose_shell(self) -> None:
        first = self.all[0]
        if first.static in _BUILTINS or _ASSIGNMENT.match(first.head):
            self.script.needs_shell = True

    def guard(self, words: Iterable[_Word], rule: _Rule) -> None:
        self.script.guards += [_Guard(name, rule) for word in words for name in word.names]

    def _refuse_bash(self) -> None:
        """What bash evaluates although it is quoted, and a POSIX shell does not know."""
        for word in self.all:
            if word.static in ("[[", "]]"):
                self.script.testing = word.static == "[["
            elif self.script.testing and word.names:
                self.script.refuse(f"{{{word.names[0]}}} stands inside [[ … ]]", "use [ … ]", word.start)
            index = word.text.partition("=")[0]
            if word.names and "=" in word.text and _INDEXED.match(index) and _HOLE in index:
                self.script.refuse(
                    f"{{{word.names[0]}}} stands in an array's index", "use a plain variable", word.start
                )
        if self.all[0].static in ("function", "coproc"):
            self.script.refuse(
                f"{self.all[0].static} is not for every shell", "write name() { …; }", self.all[0].start
            )

    # Builtins

    def _builtins(self) -> None:
        words = self.words
        while words and words[0].static is None:
            self._computed(words[1:])
            words = self._without_prefix(words[1:]) if words[0].may_vanish else []
        if words:
            self._builtin(words[0].static, words[1:])

    def _builtin(self, name: str | None, arguments: list[_Word]) -> None:
        if name == "eval":
            self._eval(arguments)
        elif name == "trap":
            operands = [word for word in arguments if word.static != "--"]
            self._nest(operands[: 1 + sum(word.may_vanish for word in operands)])
        elif name == "alias":
            self.guard(arguments, _REMOTE)
        elif name in _NAMING:
            self._naming(name, arguments)
        elif name in ("test", "[", "printf"):
            self._testing(name, [word for word in arguments if not word.may_vanish or word.names])

    def _eval(self, words: list[_Word]) -> None:
        """`eval` joins its words and reads them again: so do we."""
        if not any(word.names for word in words):
            return
        joined = _Word()
        for word in words:
            joined.plain += [*word.plain, " "]
            word.script, word.shell = None, []
        words[0].plain = joined.plain
        self._nest(words[:1])

    def _naming(self, name: str | None, words: list[_Word]) -> None:
        plain = name in ("export", "readonly", "local") and not any(w.head.startswith("-") for w in words)
        self.guard([w for w in words if not (plain and _ASSIGNMENT.match(w.head))], _NAME)

    def _testing(self, name: str | None, words: list[_Word]) -> None:
        if any(word.static in ("-v", "-R") for word in words):
            self.guard(words, _NAME)
        pairs = pairwise(words) if name != "printf" else pairwise(words[:2])
        self.guard([first for first, second in pairs if first.led_by_hole and second.names], _NO_DASH)

    def _computed(self, words: list[_Word]) -> None:
        """The program is an expansion or a value: what it does with -c is not known."""
        for option, word in pairwise(words):
            if re.fullmatch(r"-[A-Za-z]*[ceE]", option.head):
                self.guard([word], _UNKNOWN)

    # Programs, wherever in the command they stand (env, nice, timeout, xargs, find -exec, sudo, …)

    def _program(self, word: _Word, arguments: list[_Word]) -> None:
        static = word.static
        if static is None:
            return
        name = static.rpartition("/")[2]
        if name in _SHELLS:
            self._shell(arguments)
        elif name in _SCRIPT_AFTER_C and self._is_program(word):
            self._after_c(arguments)
        elif name in _REMOTES and self._is_program(word):
            self.guard(arguments, _REMOTE)
        elif static.startswith(("--entrypoint", "--split-string", "--wrap")):
            self.guard([word, *arguments], _REMOTE)
        elif static == "-S" and any(other.static == "env" for other in self.all):
            self.guard(arguments[:1], _REMOTE)
        for language in _LANGUAGES:
            if re.fullmatch(language.programs, name):
                _Options(self, language, arguments).follow()

    def _is_program(self, word: _Word) -> bool:
        """Whether a word with a common name is a program here."""
        first = (self.words[0].static or "").rpartition("/")[2] if self.words else ""
        return word in self.words[:1] or first in _WRAPPERS

    def _nest(self, words: Sequence[_Word]) -> None:
        """A word that a shell will read as a script is rendered as a script of its own."""
        for word in words:
            if not word.names:
                continue
            if word.opaque:
                fix = "put the inner script into single quotes"
                self.script.refuse(
                    f"{{{word.names[0]}}} and an expansion in one inner script", fix, word.start
                )
            inner = _Script(
                _Source(word.text, word.names, list(range(len(word.text) + 1))),
                f"{self.script.where}, inner script",
            )
            word.script = inner.read().rendered()
            self.script.guards += inner.guards

    def _shell(self, words: list[_Word]) -> None:
        """`sh [options] -c script`, `sh [options] file`, or a script on standard input."""
        script = reads = ended = computed = False
        skip = 0
        for word in words:
            head = word.head
            if skip:
                skip -= 1
            elif not ended and head[:1] in ("-", "+"):
                self.guard([word], _REMOTE)
                ended = head in ("-", "--")
                letters = "" if head.startswith("--") else head
                script, reads = script or "c" in letters, reads or "s" in letters
                skip = letters.count("o") + letters.count("O") + (head in ("--rcfile", "--init-file"))
            elif word.may_vanish and not (script and word.names):
                computed = True  # may be options, a file, or nothing at all
            else:
                self._script_operand(word, script, computed, ended)
                if script or not reads:
                    return
        self.from_stdin()

    def _script_operand(self, word: _Word, script: bool, computed: bool, ended: bool) -> None:
        if script and computed:
            self.guard([word], _UNKNOWN)
        elif script:
            self._nest([word])
        elif word.led_by_hole and not ended:
            self.guard([word], _NO_DASH)

    def from_stdin(self) -> None:
        """An interpreter without a script reads one from its input: all that was said before may be in it."""
        self.guard(self.strings, _STDIN)
        if self.piped:
            self.script.guards += [_Guard(name, _STDIN) for name in self.script.source.names]

    def _after_c(self, words: list[_Word]) -> None:
        for option, word in pairwise(words):
            head = option.head
            if head in ("--command", "--session-command") or (re.fullmatch(r"-[A-Za-z]*c", head)):
                self._nest([word])
        self.guard([w for w in words if w.head.startswith(("--command=", "--session-command="))], _REMOTE)


class _Options:
    """The options of one interpreter, followed as it does itself; in doubt a word is code."""

    def __init__(self, command: _Command, language: _Language, words: list[_Word]) -> None:
        self.command = command
        self.language = language
        self.words = words
        self.given = False  # the code, or a file with it

    def follow(self) -> None:
        """Guard every word that is code, or may be."""
        index = 0
        while 0 <= index < len(self.words):
            word = self.words[index]
            if word.static in ("--", "--args"):
                self._operands(index + 1)
                return
            option = word.head.startswith("-") and word.static != "-"
            index = self._option(index) if option else self._operand(index)
        if not self.given:
            self.command.from_stdin()

    def _code(self, index: int) -> None:
        """The word here, if there is one, is code; and the next where this one may vanish."""
        for word in self.words[index:]:
            rule = self.language.rule
            rule = _sed_rule(word.text, word.opaque, rule) if self.language.label == "sed" else rule
            self.command.guard([word], rule)
            if not word.may_vanish:
                return

    def _operands(self, index: int) -> None:
        """All from here on are operands."""
        if self.language.operand and not self.given:
            self._code(index)

    def _operand(self, index: int) -> int:
        """An operand: code, a script's file, or data. Returns the next index, or -1 when all else is data."""
        word, language = self.words[index], self.language
        if language.operand and not self.given:
            self._code(index)
        if word.led_by_hole:
            self.command.guard([word], _NO_DASH)
        if self._is_value(index) or word.may_vanish or word.static == "-":
            return index + 1
        self.given = True
        return index + 1 if language.permutes else -1

    def _is_value(self, index: int) -> bool:
        """Whether this may be the value of the long option before it."""
        before = self.words[index - 1].head if index else ""
        return before.startswith("--") and "=" not in before

    def _option(self, index: int) -> int:
        """An option, and the next word where it belongs to it."""
        head, language = self.words[index].head, self.language
        name, equals, _ = head.lstrip("-").partition("=")
        if name in language.long:
            self.given = True
            self._code(index if equals else index + 1)
            return index + (1 if equals else 2)
        if head.startswith("--"):
            return index + 1
        return self._letters(index, head)

    def _letters(self, index: int, head: str) -> int:
        """Letters behind one dash: the first that takes something ends them."""
        language = self.language
        known = language.code + language.takes + language.suffix + language.ends
        place = next((i for i, letter in enumerate(head) if i and letter in known), 0)
        letter, last = head[place], place == len(head) - 1
        if language.ends and letter in language.ends:
            self.given = True
            return -1
        if letter in language.code:
            return self._code_letter(index)
        if letter in language.takes:
            self.given = self.given or letter in language.files
            return index + (2 if last and self.words[index].static is not None else 1)
        self.command.guard(self.words[index : index + 1], language.rule)
        return index + 1

    def _code_letter(self, index: int) -> int:
        """Code is attached, or the next word; that one is looked at again if it could be an option."""
        self.given = True
        self._code(index)
        self._code(index + 1)
        if self.language.stops:
            return -1
        following = self.words[index + 1 : index + 2]
        return index + (1 if following and following[0].head.startswith("-") else 2)


def _arguments(script: _Script, source: _Source) -> list[list[_Part]]:
    """The script for the shell as one argument, or the words of a command that needs none."""
    try:
        state = script.read()
    except _Refused:
        if source.names:
            raise
        script.needs_shell = True
        return [[source.text]]
    if script.needs_shell:
        return [state.rendered()]
    return [word.argument() for word in state.out if isinstance(word, _Word)]
