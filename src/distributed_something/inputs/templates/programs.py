"""What takes a word as code: the short table of places where a value must not stand. Pure.

A script for an inner shell (`sh -c '… {x} …'`) is read like the one around it, and its quotes hold. A
placeholder in code of another language is refused, whatever its values are. Builtins that read a word as a
name or a number, and variables that shells act on, take harmless values only. What else a program does with
its words is the program's own, and no table could list it: docs/security.md says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from .shell import ASSIGNMENT, EXPANDED, Word


class Rule(NamedTuple):
    """A place, and the values that may stand there: those that match `pattern`; empty: no value may."""

    place: str
    pattern: str = ""
    fix: str = ""


SCRIPT = Rule("in a script for a shell")
"""Not a rule for values: the word is to be read as a script, and all is well."""

_HARMLESS = "[A-Za-z0-9_.,:@%+=/-]*"
_NAME = Rule("where the shell expects a name or a number", _HARMLESS, "v={x} sets a variable")
_VARIABLE = Rule("in a variable that shells act on", _HARMLESS, "give it a fixed value")
_EVAL = Rule("in one of several words of eval")
_CODE = Rule("in code that is not the shell's own")
_PIPE = Rule("in what a pipe may feed to an interpreter as code")

Finding = tuple[Word, Rule]


class _Language(NamedTuple):
    """Options of an interpreter, as letters: behind `code` comes code, behind `file` a file of it.

    Behind `takes` comes a value, and an `attached` one is in the same word. `first`: the first operand is
    code, unless an option gave it. `mixed`: options may follow operands. `ends`: all behind the code is data.
    """

    code: str
    takes: str = ""
    attached: str = ""
    file: str = ""
    first: bool = False
    mixed: bool = False
    ends: bool = False


_SHELLS = {"sh", "ash", "bash", "dash", "rbash", "zsh", "ksh", "mksh", "lksh", "yash"}
_LANGUAGES = {
    **dict.fromkeys(["python", "ipython", "pypy"], _Language("cm", takes="WX", ends=True)),
    **dict.fromkeys(["fish", "csh", "tcsh", "pwsh"], _Language("c", takes="o", ends=True)),
    **dict.fromkeys(["node", "nodejs"], _Language("pe", takes="r")),
    **dict.fromkeys(["lua", "luajit"], _Language("e", takes="l")),
    **dict.fromkeys(["Rscript", "julia", "octave"], _Language("eE", takes="LJpt")),
    **dict.fromkeys(["awk", "gawk", "mawk", "nawk"], _Language("e", takes="vFil", file="f", first=True)),
    **dict.fromkeys(["sed", "gsed"], _Language("e", "l", "i", file="f", first=True, mixed=True)),
    "perl": _Language("eEMm", attached="iFI"),
    "ruby": _Language("e", takes="rICE", attached="iFx"),
    "php": _Language("rBRE", takes="dcztS", file="fF"),
    "R": _Language("e", takes="fgd", mixed=True),
    "matlab": _Language("r", mixed=True),
}
_UNKNOWN = _Language("ce")
"""The language of a program that an expansion or a value names."""

_LONG_CODE = "--(eval|print|source|expression|exec|execute|command)|-batch"
_LONG_ALONE = "--.+=.*|--(no-.+|vanilla|quiet|silent|posix|regexp-extended|null-data)"
_LONG_FILE = "--(rcfile|init-file)"
_BEFORE = {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "builtin", "command", "time"}
# fmt: off
_NAMING = {"alias", "coproc", "declare", "export", "function", "getopts", "let", "local", "mapfile", "read",
           "readarray", "readonly", "typeset", "unset", "wait"}
# fmt: on
_ACTED_ON = (
    "PS[0-4]|PROMPT_COMMAND|ENV|BASH_[A-Z_]+|BASHOPTS|SHELLOPTS|IFS|PATH|CDPATH|S?RANDOM|SECONDS|LINENO|OPTIND"
    "|HISTCMD|TMOUT"
)


def judge(command: Sequence[Word], piped: Sequence[Word]) -> Iterator[Finding]:
    """Yields the words of a simple command that something takes as code, each with its rule.

    `piped` are the words that may reach the command's input.
    """
    yield from ((word, _VARIABLE) for word in command if re.match(rf"({_ACTED_ON})\+?=", word.head))
    own = [word for word in command if word.static not in _BEFORE]
    while own and ASSIGNMENT.match(own[0].head):
        del own[0]
    yield from _builtin(own)
    if own and not own[0].head and "/" not in own[0].plain:
        yield from ((word, _CODE) for word in _codes(_UNKNOWN, own[1:])[0])
    replaced = ""
    for index, word in enumerate(command):
        name, following = _name(word), command[index + 1 :]
        if name == "xargs":
            replaced = _replaced_by_xargs(following)
        elif name in _SHELLS or name in _LANGUAGES:
            found, given = _scripts(following) if name in _SHELLS else _codes(_LANGUAGES[name], following)
            yield from ((each, SCRIPT if name in _SHELLS else _CODE) for each in found)
            if not given or (replaced and any(replaced in each.plain for each in found)):
                yield from ((each, _PIPE) for each in piped)


def taken_for_options(command: Sequence[Word]) -> Iterator[Word]:
    """Yields the words that begin with a value, and that no `--` stands before."""
    for word in command:
        if word.static == "--":
            return
        if word.marks and word.plain.replace(EXPANDED, "").startswith(tuple(word.marks)):
            yield word


def _name(word: Word) -> str:
    """Returns the name of a program, without its folder and version."""
    name = word.plain.rpartition("/")[2]
    return name.rstrip("0123456789.") or name


def _replaced_by_xargs(words: Sequence[Word]) -> str:
    """Returns the text that xargs replaces by what it reads; empty: none."""
    for word, following in pairwise(words):
        if word.static in ("-I", "-J"):
            return following.plain
        if match := re.fullmatch(r"-[IJ](.+)|-i(.*)|--replace(?:=(.*))?", word.plain):
            return next(filter(None, match.groups()), "{}")
    return ""


def _builtin(words: Sequence[Word]) -> Iterator[Finding]:
    """Yields what the shell itself takes as code, as a name or as a number."""
    name, arguments = (words[0].static if words else None), words[1:]
    if name == "eval":
        yield from ((word, SCRIPT if len(arguments) == 1 else _EVAL) for word in arguments)
    elif name == "trap":
        yield from [(word, SCRIPT) for word in arguments if word.static != "--"][:1]
    elif name in _NAMING:
        yield from ((w, _NAME) for w in arguments if name != "export" or not ASSIGNMENT.match(w.head))
    elif name in ("for", "select"):  # their first word is assigned each of the others
        acted_on = any(re.fullmatch(_ACTED_ON, word.plain) for word in arguments[:1])
        yield from ((word, _VARIABLE) for word in (arguments if acted_on else ()))
    elif name in ("[", "test", "printf"):
        operators = arguments[:1] if name == "printf" else arguments
        if any(re.fullmatch("-(v|R|eq|ne|lt|le|gt|ge)?", word.head) for word in operators):
            yield from ((word, _NAME) for word in arguments)


def _scripts(words: Sequence[Word]) -> tuple[list[Word], bool]:
    """Returns the script among a shell's arguments, and whether they name its program at all."""
    expected, values = False, 0
    for word in words:
        if values:
            values -= 1
        elif word.head[:1] in ("-", "+") and word.plain not in ("-", "--"):
            short = "" if word.plain.startswith("--") else word.plain[1:]
            expected |= "c" in short
            values = len(re.findall("[oO]", short)) or int(bool(re.fullmatch(_LONG_FILE, word.plain)))
            if "s" in short and not expected:
                return [], False
        elif expected:
            return [word], True
        elif word.plain not in ("-", "--") and not word.may_vanish:
            return [], word.static != "/dev/stdin"
    return [], False


def _codes(language: _Language, words: Sequence[Word]) -> tuple[list[Word], bool]:
    """Returns the code among an interpreter's arguments, and whether they name its program at all."""
    found: list[Word] = []
    given = doubt = no_options = False
    rest = iter(words)
    for word in rest:
        role = "operand" if no_options else _role(language, word)
        no_options |= word.static == "--"
        if role in ("code", "file", "takes"):
            following = next(rest, None)
            found += [following] if following and role == "code" else []
            given |= role != "takes"
        elif role == "attached":
            found.append(word)
            given = True
        elif role == "operand":
            found += [word] if language.first and not given else []
            given |= not doubt and word.static not in ("-", "/dev/stdin")
            if not (doubt or language.mixed):
                break
        if given and role in ("code", "attached") and language.ends:
            break
        doubt = role == "doubt" or (doubt and role == "alone")
    return found, given


def _role(language: _Language, word: Word) -> str:
    """Returns what a word is to an interpreter: an operand, or an option and what belongs to it.

    After an option in doubt may come its value, or an operand.
    """
    option = word.plain
    if word.may_vanish and not language.first:
        return "doubt"
    if option[:1] != "-" or option in ("-", "--"):
        return "alone" if option == "--" else "operand"
    if re.fullmatch(_LONG_CODE, option):
        return "code"
    if option.startswith("--"):
        if re.match(f"({_LONG_CODE})=", option):
            return "attached"
        return "alone" if re.fullmatch(_LONG_ALONE, option, re.DOTALL) else "doubt"
    for place, letter in enumerate(option[1:], 2):
        rest = option[place:]
        if letter in language.code:
            return "attached" if rest.strip(language.code) else "code"
        if letter in language.file + language.takes:
            return "alone" if rest else "file" if letter in language.file else "takes"
        if letter in language.attached:
            break
    return "alone"
