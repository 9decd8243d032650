"""Reads a shell text: its simple commands, their words, and in which quotes each placeholder stands.

Pure syntax: what a program does with its words is for `programs`. A placeholder is a *mark* here, one
character that no command can hold; written n + 1 times, its value stands inside n levels of single quotes.

Read is what dash, bash and every POSIX shell read alike. Where they differ, or where no quotes of ours would
hold a value, a text with placeholders is refused: `Refused` says what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from ...errors import UsageError

MARK = "[\ud800-\udbff]"
MARKS = re.compile(f"({MARK})\\1*")
EXPANDED = "\0"
"""Stands in a word for what the shell puts in the place of an expansion."""


class Refused(UsageError):
    """A text that placeholders cannot be put into safely. Without placeholders it is run as it is."""


class Word:
    """A word: `shell` as it stands in the script, `plain` as its program receives it.

    `script` is what it becomes if it is a script itself: that script, with its values in quotes.
    """

    def __init__(self) -> None:
        self.shell: list[str | Word] = []
        self.plain = ""
        self.script: str | None = None

    def add(self, shell: str, plain: str) -> None:
        """Append a piece."""
        self.shell.append(shell)
        self.plain += plain

    @property
    def marks(self) -> list[str]:
        """Placeholders whose values become part of the word."""
        return re.findall(MARK, self.plain)

    @property
    def head(self) -> str:
        """What the word begins with, whatever the values and expansions are."""
        return re.split(f"{MARK}|{EXPANDED}", self.plain, maxsplit=1)[0]

    @property
    def static(self) -> str | None:
        """The word, if it is the same for all jobs."""
        return self.plain if self.head == self.plain else None

    @property
    def may_vanish(self) -> bool:
        """Whether it is all expansions (and values), and may turn out as an option, or as no word at all."""
        return re.fullmatch(f"{EXPANDED}({EXPANDED}|{MARK})*", self.plain) is not None

    def rendered(self) -> str:
        """The word as the shell is to read it."""
        return render(self.shell) if self.script is None else quoted(self.script)


def escaped(text: str) -> str:
    """Text for inside single quotes. No backslash: some locales take one for half of a character."""
    return text.replace("'", "'\"'\"'")


def quoted(text: str) -> str:
    """A text, or a script with all its marks, as one word of the shell around it."""
    return "'" + MARKS.sub(r"\1\g<0>", escaped(text)) + "'"


def render(parts: Sequence[str | Word]) -> str:
    """The text that the shell is to read."""
    return "".join(part if isinstance(part, str) else part.rendered() for part in parts)


# Between words. A line may be continued where no operator can be in the middle.
_TOKEN = re.compile(
    r"""
    (?P<blank> (?: [ \t] | (?<=[ \t\n;|&])\\\n | \\\n(?=[ \t\n]) )+ )
  | (?P<comment> \#[^\n]* )
  | (?P<newline> \n )
  | (?P<document> \d*<<(?!<)-?[ \t]*(?: '\w+' | "\w+" | \\?\w+ )(?=[ \t\n|&;()<>]|\Z) )
  | (?P<redirect> \d*(?: <<<? | >> | [<>]& | <> | >\| | [<>](?!\() ) )
  | (?P<operator> \(\( | && | \|\| | [|&;()] )
    """,
    re.VERBOSE | re.ASCII,
)
# Expansions whose end is certain: no quotes in `${…}`, one level of parentheses in `$((…))`.
_EXPANSION = r"""
    \$(?: [A-Za-z_]\w* | [@*\#?$!0-9-] | \{(?: [^'"`\\{}$] | \$\w )*\} )
  | `(?: [^`\\] | \\. )*`
  | \$\(\((?: [^()'"`\\\#\n] | \([^()'"`\\\#\n]*\) )*\)\)
"""
_BARE = re.compile(
    rf"""
    '(?P<single> [^']* )'
  | (?P<double> " )
  | \\(?P<escaped> [^\n] )
  | (?P<mark> {MARK} )
  | (?P<expansion> {_EXPANSION} | \$'(?: [^'\\] | \\[^'] )*' )
  | (?P<commands> [$<>]\((?!\() )
  | (?P<glob> [][*?~\#!{{}}] )
  | (?P<text> (?: [^][*?~\#!{{}} \t\n|&;()<>'"`\\$\ud800-\udbff] | \$(?= [ \t\n|&;)/.,:%+=\]] | \Z) )+ )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_IN_DOUBLE = re.compile(
    rf"""
    (?P<double> " )
  | \\(?P<escaped> [$`"\\] )
  | (?P<joined> \\\n )
  | (?P<mark> {MARK} )
  | (?P<expansion> {_EXPANSION} )
  | (?P<commands> \$\((?!\() )
  | (?P<text> (?: [^"\\$`\ud800-\udbff] | \\(?![$`"\\\n]) | \$(?![\w@*\#?$!{{([\\`-]) )+ )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_PAIRS = {"$((": "))", "${": "}", "$'": "'", "$[": "]", "`": "`", "'": "'"}
_DOCUMENT = re.compile(r"\d*<<(-?)[ \t]*(['\"\\]?)(\w+)")
_ELEMENT = re.compile(rf"\w*\[[^=]*{MARK}[^=]*=")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=", re.ASCII)
# fmt: off
_BUILTINS = {
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "declare", "eval", "exec", "exit",
    "export", "fg", "getopts", "hash", "jobs", "let", "local", "read", "readonly", "return", "set", "shift",
    "source", "time", "times", "trap", "type", "typeset", "ulimit", "umask", "unset", "wait",
}
# fmt: on


_BEFORE = {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "time", "exec", "command"}
"""Words before the program of a command."""

_ALONE = {"for", "case", "select", "function", "done", "fi", "esac", "}", "in"}
_BASH = {"builtin", "dirs", "popd", "pushd", "shopt", "unalias", "fc", "mapfile", "readarray", "wait"}


def programs(script: Script) -> list[str]:
    """Returns the programs that a script starts by name, as far as reading tells.

    Builtins and keywords are none. A script with functions or `case` tells nothing.
    """
    found: list[str] = []
    text = render(script.parts)
    if re.search(r"\(\s*\)", text):
        return []
    for command in script.commands:
        words = iter(command)
        word = next((w for w in words if w.static not in _BEFORE and not ASSIGNMENT.match(w.head)), None)
        name = word.static if word else None
        if name == "case":
            return []
        if name and name not in _ALONE and name not in _BUILTINS | _BASH and re.fullmatch(r"[\w./+-]+", name):
            found.append(name)
        if name in ("cd", "pushd"):  # what is relative from here on, lies elsewhere
            break
    return list(dict.fromkeys(found))


class Script:
    """A shell text, read: up to its end, or from `start` up to the `)` that closes it (`end`).

    `commands` are the words of each simple command (also inside `$(…)`), `words` all words, `parts` what
    `render` takes; `needs_shell` tells whether it uses the shell's syntax or builtins, `feeds` whether
    something is piped into a command. Raises UsageError where quotes do not pair, and Refused.
    """

    def __init__(self, text: str, where: str, names: Mapping[str, str], start: int = 0) -> None:
        self.parts: list[str | Word] = []
        self.words: list[Word] = []
        self.commands: list[list[Word]] = []
        self.needs_shell = self.feeds = False
        self.end = start
        self._text, self._where, self._names = text, where, names
        self._command: list[Word] = []
        self._documents: list[str] = []
        self._redirect = ""
        self._nested = start > 0
        self._read()

    def _read(self) -> None:
        start, depth = self.end, int(self._nested)
        while self.end < len(self._text) and (depth or not self._nested):
            token = _TOKEN.match(self._text, self.end)
            if token is None:
                self._add(self._word())
            else:
                self.end = token.end()
                self._token(str(token.lastgroup), token.group())
                depth += (token.group() == "(") - (token.group() == ")")
        if self._nested and depth:
            self._unpaired("$(", start - 2)
        self._end_command()
        self._no_documents()

    # Refusals

    def _unpaired(self, opener: str, pos: int) -> NoReturn:
        what = f"{opener} is never closed: {self._restored(self._text[pos : pos + 30])}"
        raise UsageError(f"{self._where}: {what}", "close it, or write a backslash before it")

    def refuse(self, what: str, fix: str) -> NoReturn:
        """Raise Refused."""
        raise Refused(f"{self._where}: {what}", fix)

    def _refuse_marks(self, text: str, place: str) -> None:
        """No quotes would hold a value in this text."""
        for mark in re.findall(MARK, text):
            name = self._restored(mark)
            self.refuse(f"{name} stands inside {place}", f'put it outside: v={name} before, and "$v" here')

    def _stuck(self) -> NoReturn:
        """Nothing of the grammar matches here."""
        rest = self._text[self.end :]
        for opener, closer in _PAIRS.items():
            if rest.startswith(opener):
                end = rest.find(closer, len(opener))
                if end < 0:
                    self._unpaired(opener, self.end)
                self._refuse_marks(rest[:end], f"{opener}…{closer}")
        if rest == "\\":
            raise UsageError(f"{self._where}: ends in a backslash", "remove it")
        shown = self._restored(rest[:30])
        self.refuse(f"not every shell reads this alike: {shown}", "write it simpler, or in a script file")

    def _restored(self, text: str) -> str:
        """Text with its placeholders written out again."""
        return MARKS.sub(lambda mark: f"{{{self._names[mark[1]]}}}", text)

    # Commands

    def _token(self, kind: str, text: str) -> None:
        """Take what stands between words."""
        # bash writes what it read in `$(…)` anew, and a `;` behind a here-document gets lost
        if text.lstrip("0123456789") in ("((", "<<") or (kind == "document" and self._nested):
            self.end -= len(text)
            self._stuck()
        self.needs_shell |= kind != "blank"
        self.feeds |= text == "|" or text.endswith("<<<")
        self.parts.append(self._restored(text))
        if kind in ("newline", "operator"):
            self._end_command()
        elif kind == "document":
            self._documents.append(text)
        elif kind == "redirect":
            self._redirect = text
        if kind == "newline":
            self._read_documents()

    def _read_documents(self) -> None:
        """The here-documents that this line began."""
        for opening in self._documents:
            tabs, quote, word = _DOCUMENT.findall(opening)[0]
            indent = "\t*" if tabs else ""
            found = re.compile(rf"(?:.*\n)*?{indent}{word}(?:\n|\Z)").match(self._text, self.end)
            if found is None or (not quote and re.search(r"\\\n|\$\(|`", found.group())):
                self.refuse(f"the end of {opening} is not certain", f"quote its word: <<'{word}'")
            self._refuse_marks(found.group(), "a here-document")
            self.parts.append(found.group())
            self.end = found.end()
        self._documents = []

    def _no_documents(self) -> None:
        if self._documents:
            self.refuse("a here-document without its text", "begin the text on the next line")

    def _add(self, word: Word) -> None:
        """A word has been read: of a redirection, or of the command."""
        self.parts.append(word)
        self.words.append(word)
        if _ELEMENT.match(word.plain):
            self._refuse_marks(word.plain, "an array's index")
        if self._redirect.endswith("&"):  # bash expands this word twice, quoted or not
            self._refuse_marks(word.plain, f"the word of {self._redirect}")
        if word.static == "[[" or (word.static == "case" and self._nested):
            self.refuse(f"{word.static} is not read alike by every shell", "write [ … ], or if … fi")
        if not self._redirect:
            self._command.append(word)
        self._redirect = ""

    def _end_command(self) -> None:
        if self._command:
            first = self._command[0].head
            self.needs_shell |= first in _BUILTINS or bool(ASSIGNMENT.match(first))
            self.commands.append(self._command)
        self._command, self._redirect = [], ""

    # Words

    def _word(self) -> Word:
        word, start, double = Word(), self.end, None
        while piece := (_BARE if double is None else _IN_DOUBLE).match(self._text, self.end):
            kind = str(piece.lastgroup)
            if kind == "double":
                double = self.end if double is None else None
            self.end = piece.end()
            self._piece(word, kind, piece[kind], double is not None)
        if double is not None and self.end == len(self._text):
            self._unpaired('"', double)
        ended = self.end == len(self._text) or _TOKEN.match(self._text, self.end)
        if double is not None or self.end == start or not ended:
            self._stuck()
        return word

    def _piece(self, word: Word, kind: str, text: str, double: bool) -> None:
        if kind in ("expansion", "commands"):
            self._expansion(word, kind, text)
        elif kind == "mark" and double:  # out of these quotes and in again: nothing before it reaches into it
            word.add(f'"{quoted(text)}"', text)
        elif kind in ("single", "mark"):
            word.add(quoted(text), text)
        elif kind == "escaped":
            word.add("\\" + self._restored(text), self._restored(text))
        elif kind in ("double", "joined"):
            word.add('"' if kind == "double" else "", "")
        else:
            self.needs_shell |= kind == "glob"
            word.add(text.replace("\\", "\\\\"), text)

    def _expansion(self, word: Word, kind: str, text: str) -> None:
        self.needs_shell = True
        for opener, closer in _PAIRS.items():
            if text.startswith(opener):
                self._refuse_marks(text, f"{opener}…{closer}")
        word.add(text, EXPANDED)
        if kind == "commands":
            self._no_documents()
            inner = Script(self._text, self._where, self._names, self.end)
            self.end = inner.end
            self.feeds |= inner.feeds
            self.words += inner.words
            self.commands += inner.commands
            word.shell += inner.parts
