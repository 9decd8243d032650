"""What programs do with their words: which of them are code, and what a value in code may be.

One careful rule in place of exact knowledge. A script for an inner shell is read like the one around it. In
any other word that may be code, and in every word after an option that is not known here, only harmless
values are let through. To know more options of a program can only let more values pass.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from .shell import ASSIGNMENT, Word


class Rule(NamedTuple):
    """Values that may stand in a place: `pattern` matches all of each."""

    place: str
    pattern: str = "[A-Za-z0-9_.,:@%+=/-]*"
    fix: str = ""


SCRIPT = Rule("in a script for a shell")
"""Not a rule for values: the word is to be read as a script, and all is well."""

_SSH = Rule("in words that another shell reads", fix="write it into a file")
_OPTION = Rule("after an option that often takes code", fix='v={x} before, and "$v" here')
_EVAL = Rule("in one of several words of eval", fix="quote all of it as one word")
_NAME = Rule("where the shell expects a name or a number", fix="v={x} sets a variable")
_STDIN = Rule("in a script that a pipe feeds to an interpreter", fix="pass it as an argument")
_NO_DASH = Rule("where a program expects an option", "(?s:[^+-].*)?", "write -- or ./ before {x}")
_QUERY = Rule("in the words of a database", fix="give it a file made of it by a program that knows SQL")
_VARIABLE = Rule("in a variable that shells or programs act on", fix="give it a fixed value")
_SED_TEXT = Rule("inside sed code", "[A-Za-z0-9_.-]*", "awk -v x={x} '…'")
_SED_CODE = _SED_TEXT._replace(pattern="[0-9]+")  # to sed even a letter is a command

Finding = tuple[Word, Rule]


class _Interpreter:
    """How a program is given code. Options are patterns of a whole word; one not listed is a doubt.

    `code`: the next word is code or a file of it; `takes`: the next word is data; `alone`: nothing follows.
    `first`: the first operand is code where no option gave it. `ends`: all that follows the code is data.
    `mixed`: options are found after operands too.
    """

    def __init__(
        self,
        code: str,
        alone: str,
        takes: str = "-",
        first: bool = False,
        ends: bool = False,
        mixed: bool = False,
    ) -> None:
        self.options = {"end": "--", "code": code, "takes": takes, "alone": alone}
        self.first, self.ends, self.mixed = first, ends, mixed


_SHELL = _Interpreter(
    code="[-+][a-np-rt-zA-NP-Z]*c[a-np-rt-zA-NP-Z]*",
    alone="[-+][a-np-rt-zA-NP-Z]+|--(login|norc|noprofile|posix)",
    takes="[-+][a-np-rt-zA-NP-Z]*o",
    ends=True,
)
_PYTHON = _Interpreter("-[BEIOPqsSuvx]*[cm]", "-[BEIOPqsSuvx]+", ends=True)
_PERL = _Interpreter("-[A-Za-z0-9]*[eE]", r"-[aclnpsw0-9]*(i\S*)?|-[FMmI]\S+")
_OTHER = _Interpreter("-[a-z]?[eEprBR]|--eval|--print", "-[qs]|--vanilla|--no-[a-z-]+")
_R = _Interpreter("-e", "-[qs]|--vanilla|--no-[a-z-]+", mixed=True)
_AWK = _Interpreter("-f", r"-[Fv]\S+", takes="-[Fv]", first=True)
_SED = _Interpreter("-[nErsuz]*[ef]", r"-[nErsuz]+|-i\S*", first=True, mixed=True)
# fmt: off
_INTERPRETERS = {
    "sh": _SHELL, "ash": _SHELL, "bash": _SHELL, "dash": _SHELL, "rbash": _SHELL, "zsh": _SHELL,
    "ksh": _SHELL, "mksh": _SHELL, "lksh": _SHELL, "yash": _SHELL,
    "python": _PYTHON, "ipython": _PYTHON, "pypy": _PYTHON, "perl": _PERL, "ruby": _PERL,
    "node": _OTHER, "nodejs": _OTHER, "Rscript": _OTHER, "R": _R, "php": _OTHER, "lua": _OTHER,
    "luajit": _OTHER, "julia": _OTHER,
    "awk": _AWK, "gawk": _AWK, "mawk": _AWK, "nawk": _AWK, "sed": _SED, "gsed": _SED,
}
_QUERYING = {"duckdb", "sqlite"}  # without their version, as all names here
_REMOTE = {"parallel", "sbatch", "scp", "ssh", "tmux", "watch"}
# Some take commands, some variables' names: bash runs the `$(…)` of an array's index in one.
_NAMING = {"alias", "coproc", "declare", "export", "function", "getopts", "let", "local", "mapfile", "read",
           "readarray", "readonly", "typeset", "unset", "wait"}
_KEYWORDS = {"if", "then", "elif", "else", "while", "until", "do", "!", "{"}
_WRAPPERS = {"builtin", "command", "doas", "env", "exec", "ionice", "nice", "nohup", "setsid", "stdbuf",
             "sudo", "time", "timeout", "xargs"}
# The options -c, -e and -r of these take no code.
_PLAIN = {
    "[", "basename", "cat", "chgrp", "chmod", "chown", "cmp", "cp", "cut", "date", "diff", "dirname", "du",
    "echo", "egrep", "fgrep", "grep", "gunzip", "gzip", "head", "join", "ln", "ls", "md5sum", "mkdir", "mv",
    "od", "paste", "pigz", "printf", "rm", "rmdir", "sha256sum", "sort", "stat", "tac", "tail", "tee",
    "test", "touch", "tr", "uniq", "unzip", "wc", "xz", "zcat", "zip", "zstd",
}
# fmt: on
# Shells expand some of these, count with some, and run what others name; so do loaders and interpreters.
_ACTED_ON = (
    "PS[0-4]|PROMPT_COMMAND|ENV|BASH_[A-Z_]+|BASHOPTS|SHELLOPTS|IFS|PATH|CDPATH|S?RANDOM|SECONDS|LINENO"
)
_ACTED_ON += (
    "|OPTIND|HISTCMD|TMOUT|(LD|DYLD|GIT)_[A-Z0-9_]+|GCONV_PATH|PYTHON[A-Z]+|PERL5[A-Z]+|PERLLIB|RUBY[A-Z]+"
)
_ACTED_ON += "|NODE_(OPTIONS|PATH)|R_[A-Z_]+|LUA_[A-Z0-9_]+|(JAVA_TOOL|JDK_JAVA|_JAVA|TAR)_OPTIONS|CLASSPATH"
_ACTED_ON += "|AWK(LIB)?PATH|(GNU)?MAKEFLAGS|EDITOR|VISUAL|PAGER|LESSOPEN|LESSCLOSE|RSYNC_RSH"
_WORDY = "--?(eval|batch|command|Command|macro)|--(checkpoint-action|code|compress-program|entrypoint|execute"
_WORDY += (
    "|expression|filter|print|rsh|run|session-command|source|split-string|to-command|use-compress-program"
)
_WORDY += "|wrap)"
_CODE_OPTION = "-[A-Za-z]{0,2}[ceErS]|-ex|-iex|" + _WORDY
_CODE_ATTACHED = f"-[ceES]|({_WORDY})="
_BODY = r"(?:\\[^\0\n\ud800-\udbff]|(?!\1)[^\\\n\0])*"
_SED_TEXTS = rf"(?:(?:^|\s*[;\n]\s*)s([/|#,:@!~]){_BODY}\1{_BODY}\1[gpI0-9]*)+"


def judge(command: Sequence[Word], piped: Sequence[Word]) -> Iterator[Finding]:
    """The words of a simple command that something takes as code, each with its rule.

    `piped` are the words that may reach the command's input.
    """
    words = _without_prefix(command)
    program = _name(words[0]) if words else ""
    yield from _all([word for word in command if re.match(rf"({_ACTED_ON})\+?=", word.head)], _VARIABLE)
    yield from _builtin(program, words[1:])
    unknown = len(command) - len(words) if program in _PLAIN else len(command)
    for index, word in enumerate(command):
        name = _name(word)
        if name in _INTERPRETERS:
            unknown = min(unknown, index)
            given = yield from _interpreted(name, command[index + 1 :])
            yield from () if given else _all(piped, _STDIN)
        elif name in _QUERYING:
            yield from _all(command[index + 1 :], _QUERY)
            yield from _all(piped, _STDIN)
        elif name in _REMOTE:
            yield from _all(command[index + 1 :], _SSH)
    yield from _after_options(command[:unknown])


def _name(word: Word) -> str:
    """The name of a program, without its folder and version."""
    name = word.plain.rpartition("/")[2]
    return name.rstrip("0123456789.") or name


def _all(words: Sequence[Word], rule: Rule) -> Iterator[Finding]:
    return ((word, rule) for word in words)


def _without_prefix(words: Sequence[Word]) -> Sequence[Word]:
    """The command itself: without keywords, assignments, and programs that start the next one."""
    wrapped = False
    for index, word in enumerate(words):
        static = word.static or ""
        wrapped = wrapped or static in _WRAPPERS
        own = static in _WRAPPERS or (wrapped and re.match("[-+]|[0-9.]+[smhd]?$", static))
        if not (own or static in _KEYWORDS or ASSIGNMENT.match(word.head) or word.may_vanish):
            return words[index:]
    return ()


def _after_options(words: Sequence[Word]) -> Iterator[Finding]:
    """Words after options that look as if code came next, of a program that is not known here."""
    expected = False
    for word in words:
        if expected or re.match(_CODE_ATTACHED, word.head):
            yield word, _OPTION
        if not word.may_vanish:
            expected = bool(re.fullmatch(_CODE_OPTION, word.static or ""))


# -- The shell's own ----------------------------------------------------------------------------------------


def _builtin(name: str, arguments: Sequence[Word]) -> Iterator[Finding]:
    if name == "eval":
        yield from _all(arguments, SCRIPT if len(arguments) == 1 else _EVAL)
    elif name == "trap":
        yield from _all([word for word in arguments if word.static != "--"][:1], SCRIPT)
    elif name in _NAMING:
        yield from _all([w for w in arguments if name != "export" or not ASSIGNMENT.match(w.head)], _NAME)
    elif name in ("for", "select"):  # their first word is assigned each of the others
        acted_on = any(re.fullmatch(_ACTED_ON, word.plain) for word in arguments[:1])
        yield from _all(arguments if acted_on else (), _VARIABLE)
    elif name in ("[", "test", "printf"):
        yield from _tested(name, [word for word in arguments if word.marks or not word.may_vanish])


def _tested(name: str, words: Sequence[Word]) -> Iterator[Finding]:
    """A name or number comes after `-v` or `-eq`; and no value becomes such an operator."""
    operators = words[:1] if name == "printf" else words
    if any(re.fullmatch("-(v|R|eq|ne|lt|le|gt|ge)?", word.head) for word in operators):
        yield from _all(words, _NAME)
    for first, second in pairwise(words[:2] if name == "printf" else words):
        if not first.head and second.marks:
            yield first, _NO_DASH


# -- Interpreters -------------------------------------------------------------------------------------------


def _interpreted(name: str, words: Sequence[Word]) -> Generator[Finding, None, bool]:
    """Follow the options as the interpreter does. Returns whether its program is among the words."""
    interpreter = _INTERPRETERS[name]
    given = expected = skipped = False
    for index, word in enumerate(words):
        role = _role(interpreter, word)
        if role == "doubt":
            yield from ((other, _in_code(name, other)) for other in words[index:])
            return given
        if skipped or word.static == "":
            skipped = False
        elif role == "end" and given:
            return True
        elif role != "operand":
            skipped, expected = role == "takes", expected or role == "code"
        else:
            if expected or (interpreter.first and not given):
                yield word, SCRIPT if interpreter is _SHELL else _in_code(name, word)
            if not expected and not word.head:
                yield word, _NO_DASH
            given = word.static not in ("-", "/dev/stdin")
            if interpreter.ends if expected else not interpreter.mixed:
                return given
            expected = False
    return given


def _role(interpreter: _Interpreter, word: Word) -> str:
    """What a word is to an interpreter that still looks for options."""
    if word.may_vanish:
        return "doubt"
    if word.static == "-" or not word.head.startswith(("-", "+")):
        return "operand"
    options = interpreter.options.items()
    return next((role for role, option in options if re.fullmatch(option, word.static or "")), "doubt")


def _in_code(name: str, word: Word) -> Rule:
    if not name.endswith("sed"):
        return Rule(f"inside {name} code", fix="pass it as an argument of the code")
    return _SED_TEXT if re.fullmatch(_SED_TEXTS, word.plain) else _SED_CODE
