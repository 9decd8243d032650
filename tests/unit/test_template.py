"""Placeholders: what goes in is data, whatever it looks like and wherever it stands."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distributed_something.errors import UsageError
from distributed_something.inputs.templates.template import (
    MAX_ARGUMENT,
    CommandTemplate,
    Template,
    check_names,
    check_variables,
    variables_of,
)

FOUND = ["/bin/sh", *filter(None, map(shutil.which, ["dash", "bash"]))]
SHELLS = [[path] for path in {Path(path).resolve(): path for path in FOUND}.values()]
SHELLS += [[busybox, "sh"]] if (busybox := shutil.which("busybox")) else []

CONTEXTS = [
    "printf %s {v}",
    'printf %s "{v}"',
    "printf %s '{v}'",
    r'printf %s "\\"{v}"$A" | tail -c +2',
    'printf %s "$A{v}$A"',
    'x="$(printf %s_ {v})"; printf %s "${x%_}"',
    'x=$(printf %s_ "{v}"); printf %s "${x%_}" # \'{v}',
    'x={v}; printf %s "$x"',
    "sh -c 'printf %s {v}'",
    """sh -c 'printf %s "{v}"'""",
    """sh -c "printf %s '{v}'" """,
    """env -i nice bash -ec "printf %s \\"{v}\\"" """,
    """sh -c 'sh -c "printf %s {v}"'""",
    "sh -c 'printf %s \"$1\"' _ {v}",
    "eval 'printf %s \"{v}\"'",
    "(trap 'printf %s {v}' EXIT)",
    "case {v} in {v}) printf %s {v};; *) echo wrong;; esac",
    'for i in {v}; do printf %s "$i"; done',
    "if [ x{v} = x'{v}' ]; then printf %s {v}; fi",
    "cat <<'EOF' > /dev/null\nit's `\nEOF\nprintf %s {v}",
    "{{ printf %s {v}; }} > f; cat f; rm f",
    "f() {{ printf %s {v}; }}; f",
    "printf %s {v} | xargs -0 -n1 sh -c 'printf %s \"$1\"' _",
    "printf %s \\\n{v}",
    "sh -c 'printf %s $A\"\"{v}'",
    "bash -Eeuo pipefail -Bc 'printf %s {v}'",
    "! eval 'printf %s {v}'",
    "find . -maxdepth 0 -exec sh -c 'printf %s \"{v}\"' \\;",
]

# fmt: off
NASTY = [
    "a b", "a'b", 'a"b', "$(touch pwned)", "`touch pwned`", "; touch pwned", "| touch pwned",
    "\ntouch pwned\n", "' ; touch pwned ; '", "'\"'\"'; touch pwned #", '" ; touch pwned ; "',
    '"$(touch pwned)"', "\\", "\\'", '\\"', "${IFS}", "$((1+1))", "!!", "*", "?", "[a]", "~", "-n", "--",
    "#x", "&& touch pwned", "> pwned", "é 😀", "\r\n", "a[$(touch pwned)]", "$'\\x27'", "{a,b}", "X=1", "if",
    "\t", "%s", "\udcff'$(touch pwned)", ")", ";;", "EOF\n",
]
# fmt: on

PIECES = st.sampled_from(
    [*NASTY, "touch pwned", "'", '"', "$", "(", ")", "`", "\\", "\n", " ", "x", "}", "{v}"]
)
VALUES = st.one_of(
    st.lists(PIECES, min_size=1, max_size=6).map("".join),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
)


def run(argv: Sequence[str], folder: Path) -> bytes:
    """What a command prints. It must leave nothing behind."""
    done = subprocess.run(argv, cwd=folder, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    assert done.stderr == b""
    assert list(folder.iterdir()) == []
    return done.stdout


def as_bytes(value: str) -> bytes:
    return value.encode(errors="surrogateescape")


@pytest.fixture(scope="module")
def templates() -> list[CommandTemplate]:
    return [CommandTemplate(context + "; :", allow_dash=True) for context in CONTEXTS]


def all_contexts(templates: list[CommandTemplate], value: str) -> str:
    """One script for all contexts: to start a shell for each would take minutes."""
    scripts = [template.argv({"v": value})[2].removesuffix("; :") for template in templates]
    return "A=; " + "\nprintf '\\0'\n".join(scripts)


def test_every_context_needs_the_shell(templates: list[CommandTemplate]) -> None:
    assert all(template.argv({"v": "x"})[:2] == ["/bin/sh", "-c"] for template in templates)


@pytest.mark.fault(23)
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("value", NASTY)
def test_nasty_values_come_out_as_they_went_in(
    templates: list[CommandTemplate], shell: list[str], value: str, tmp_path: Path
) -> None:
    printed = run([*shell, "-c", all_contexts(templates, value)], tmp_path).split(b"\0")
    assert dict(zip(CONTEXTS, printed, strict=True)) == dict.fromkeys(CONTEXTS, as_bytes(value))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
@example(value="'" * 9)
def test_any_value_comes_out_as_it_went_in(
    templates: list[CommandTemplate], value: str, tmp_path: Path
) -> None:
    script = all_contexts(templates, value)
    for shell in SHELLS:
        printed = run([*shell, "-c", script], tmp_path).split(b"\0")
        assert dict(zip(CONTEXTS, printed, strict=True)) == dict.fromkeys(CONTEXTS, as_bytes(value))


def composed(random: Random, depth: int) -> str:
    """A command that prints {v}, wrapped in this many layers of the shell's syntax."""
    if not depth:
        return "printf %s " + random.choice(["{v}", '"{v}"', "'{v}'", '"$A{v}"', "\\\n {v}", "''{v}\"\""])
    inner = composed(random, depth - 1)
    single = "'" + inner.replace("'", "'\"'\"'") + "'"
    double = '"' + re.sub(r'([\\"$`])', r"\\\1", inner) + '"'
    return random.choice(
        [f"sh -c {single}", f"nice bash -ec {double} _ {{v}}", f"eval {single}", f"eval {double}",
         f"( {inner})", f"{inner} | cat", f": # {{v}} '\n{inner}", f"for i in 1; do {inner}; done",
         f"x=$( {inner}; echo _); printf %s \"${{x%_}}\""]
    )  # fmt: skip


@pytest.mark.fault(23)
@pytest.mark.parametrize("seed", range(40))
def test_composed_commands_print_the_value(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    for shell in SHELLS:
        value = "".join(random.choices(NASTY, k=3)) + "."
        text = "A=; cat <<'E' >&2\nE\n" + composed(random, random.randrange(1, 5))
        script = CommandTemplate(text, allow_dash=True).argv({"v": value})[2]
        assert run([*shell, "-c", script], tmp_path).rstrip(b"\n") == as_bytes(value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=3, max_size=3))
def test_without_a_shell_values_are_arguments(values: list[str], tmp_path: Path) -> None:
    template = CommandTemplate("""printf "%s\\0%s\\0" {a}'{b}' '' "-{c}" """, allow_dash=True)
    assert not template.shell
    a, b, c = values
    assert run(template.argv({"a": a, "b": b, "c": c}), tmp_path) == as_bytes(f"{a}{b}\0\0-{c}\0\0")


@pytest.mark.fault(23)
def test_a_path_with_a_space_is_one_argument(tmp_path: Path) -> None:
    template = CommandTemplate("convert {input_dir}/{Plate}.tif -resize 50% {output_dir}/{Plate}.png")
    values = {"input_dir": "/my data", "output_dir": "/out put", "Plate": "P 1"}
    expected = ["convert", "/my data/P 1.tif", "-resize", "50%", "/out put/P 1.png"]
    assert template.argv(values) == expected
    piped = CommandTemplate("printf '<%s>' {input_dir}/{Plate}.tif | cat")
    assert run(piped.argv(values), tmp_path) == b"</my data/P 1.tif>"


@pytest.mark.parametrize(
    "text",
    ["a | b", "a & b", "a; b", "a < b", "a > b", "(a)", "echo $HOME", "echo `a`", "ls *", "ls ?", "ls [a]",
     "a #b", "ls ~", "! a", "X=1 a", "a\nb", "echo {{a,b}}", "cd x", "export X", "exit 1", ". x", "eval x",
     "exec x", 'echo "$HOME"', "ulimit -n 1", "find . -exec x {} +"],
)  # fmt: skip
def test_the_shell_runs_what_uses_its_syntax(text: str) -> None:
    assert CommandTemplate(text).argv({}) == ["/bin/sh", "-c", text.replace("{{", "{").replace("}}", "}")]


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("true", ["true"]),
        ('echo \'a b\' "c\\"d" e\\ f', ["echo", "a b", 'c"d', "e f"]),
        ("prog --size=3 50% a,b:c@d", ["prog", "--size=3", "50%", "a,b:c@d"]),
        ("awk '{ print $1 }' f", ["awk", "{ print $1 }", "f"]),
        ("a \\\n  b", ["a", "b"]),
        ("test -e x", ["test", "-e", "x"]),
        ("echo '{{x}}'", ["echo", "{x}"]),
        ("""echo '{"a":{"b":1}}'""", ["echo", '{"a":{"b":1}}']),
        ("echo \\{x}", ["echo", "{x}"]),
        ("echo ''", ["echo", ""]),
    ],
)
def test_other_commands_run_directly(text: str, argv: list[str]) -> None:
    assert CommandTemplate(text).argv({}) == argv


def test_a_value_never_decides_about_the_shell() -> None:
    assert CommandTemplate("{a} {b}").argv({"a": "cd", "b": "x; y"}) == ["cd", "x; y"]


def test_a_dollar_keeps_braces_for_the_shell() -> None:
    template = CommandTemplate("echo ${HOME} {HOME}")
    assert template.argv({"HOME": "x"}) == ["/bin/sh", "-c", "echo ${HOME} 'x'"]
    assert Template("${a}{a}").fill({"a": 1}) == "${a}1"


def test_comments_are_left_alone() -> None:
    template = CommandTemplate("echo {a} # {b} isn't used\necho c")
    assert template.names == {"a"}
    assert template.argv({"a": 1})[2] == "echo '1' # {b} isn't used\necho c"


@pytest.mark.parametrize(
    ("value", "text"),
    [("é", "é"), (3, "3"), (2**70, str(2**70)), (1.5, "1.5"), (True, "true"), (None, ""),
     ([1, "é"], '[1, "é"]'),
     ({"a": None}, '{"a": null}')],
)  # fmt: skip
def test_values_as_text(value: object, text: str) -> None:
    assert Template("<{v}>").fill({"v": value}) == f"<{text}>"
    assert CommandTemplate("echo {v}").argv({"v": value}) == ["echo", text]


def test_plain_templates_do_not_quote() -> None:
    template = Template("{output_location}/{a.b-c}/{{x}}/{{{x}}}")
    assert template.names == {"output_location", "a.b-c", "x"}
    assert template.fill({"output_location": "s3://it's", "a.b-c": "d e", "x": 1}) == "s3://it's/d e/{x}/{1}"


def test_unknown_names_are_told_with_a_guess() -> None:
    with pytest.raises(
        UsageError, match=r"COMMAND: \{Plat\} is not a key of the job: did you mean \{Plate\}\?"
    ):
        check_names(CommandTemplate("echo {Plat}"), ["Plate", "Well"], "COMMAND")
    check_names(Template("{Plate}"), ["Plate"], "INPUTS")
    with pytest.raises(UsageError, match=r"\{a\} is not a key"):
        CommandTemplate("echo {a}").argv({})
    with pytest.raises(UsageError, match=r"\{a\} is not a key"):
        Template("{a}").fill({})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("  ", "is empty"),
        ("echo 'a", "' is never closed: 'a"),
        ('echo "a', '" is never closed'),
        ("echo $(a", "$( is never closed"),
        ("echo ${a", "${ is never closed"),
        ("echo `a", "` is never closed"),
        ("echo a\\", "ends in a backslash"),
        ("sh -c 'echo \"{x}'", 'inner script: " is never closed: "{x}'),
        ("echo \0", "NUL"),
        ("echo \ud800", "surrogate"),
        ("{x}" * 1025, "more than 1,024 placeholders"),
        ("echo `cat {x}`", "{x} stands inside `…`"),
        ('echo "`cat {x}`"', "{x} stands inside `…`"),
        ("sh -c 'echo `{x}`'", "inner script: {x} stands inside `…`"),
        ("echo ${a:-{x}}", "{x} stands inside ${…}"),
        ("echo $'{x}'", "{x} stands inside $'…'"),
        ("echo $[{x}]", "{x} stands inside $[…]"),
        ("echo $((3-{x}))", "{x} stands inside $((…))"),
        ("cat <<EOF\n{x}\nEOF", "{x} stands inside a here-document"),
        ("a[{x}]=1", "{x} stands inside an array's index"),
        ("a 2>&1{x}", "{x} stands inside the word of 2>&"),
        ("cat <<EOF\nEOF {x}", "the end of <<EOF is not certain"),
        ("cat <<EOF\na\\\nEOF\n{x}", "the end of <<EOF is not certain"),
        ("cat <<EOF\n$(a\nEOF\n)\nEOF\n{x}", "the end of <<EOF is not certain"),
        ("cat <<EOF; echo {x}", "here-document without its text"),
        ("echo $(cat <<EOF\nEOF\n) {x}", "not every shell reads this alike: <<EOF"),
        ("cat <<EOF $(a\n)\nEOF\n{x}", "here-document without its text"),
        ("cat <<{x}\nEOF", "not every shell reads this alike: <<{x}"),
        ("echo ${a:-'b'} {x}", "not every shell reads this alike: ${a"),
        ("echo $'\\'' {x}", "not every shell reads this alike: $'"),
        ("echo $((`a` + 1)) {x}", "not every shell reads this alike: $(("),
        ("echo <\\\n<EOF {x}", "not every shell reads this alike: \\"),
        ("echo $\\\n{x}", "not every shell reads this alike: $"),
        ("sh -c 'echo $'{x}", "not every shell reads this alike: ${x}"),
        ("(( {x} > 1 ))", "not every shell reads this alike: (("),
        ("for ((i=0; i<{x}; i++)); do :; done", "not every shell reads this alike: (("),
        ("[[ {x} -eq 1 ]]", "[[ is not read alike"),
        ("echo $(case a in a) echo {x};; esac)", "case is not read alike"),
        ('sh -c "echo $HOME {x}"', "{x} and an expansion in one inner script"),
        ('eval "$a {x}"', "{x} and an expansion in one inner script"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_safe_are_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        CommandTemplate(text)
    assert why in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize(
    "text", ["echo `a` $'\\'' ${a:-'b'}", "x &> y", "cat <<EOF\n'\nEOF", "echo $(case a in a) b;; esac)"]
)
def test_without_placeholders_any_script_will_do(text: str) -> None:
    assert CommandTemplate(text).argv({}) == ["/bin/sh", "-c", text]


CODE = [
    "python -c 'print({x})'",
    "cd / && /usr/bin/python3.11 -Ic 'print({x})'",
    "python3 -W error -c 'print({x})'",
    "python -c'print({x})'",
    "python -m {x}",
    "env A=1 timeout 5 python -uc \"print('$HOME', {x})\"",
    "perl -i.bake -lane 'print {x}' f",
    "perl -e '1' -e '{x}'",
    "echo {x} | perl -l -n",
    "perl -M{x} -e 1",
    "ruby -rjson -e 'p {x}'",
    "node --import a -pe '{x}'",
    "node --trace-warnings --eval '{x}'",
    "node --eval='{x}'",
    "Rscript --vanilla -e 'print({x})'",
    "php -d a=b -r 'echo {x};'",
    "lua -e '{x}'",
    "julia --threads 4 -E '{x}'",
    "octave --eval '{x}'",
    "matlab -nodisplay -logfile l -batch \"f('{x}')\"",
    "fish -c 'echo {x}'",
    "awk '{ print \"{x}\" }' f",
    "awk -F , -v a={y} -- '{ print {x} }' f",
    "awk -- '-{x}' f",
    "gawk -f lib --source '{x}'",
    "gawk --assign a=1 '{x}' f",
    "sed 's/a/{x}/' f",
    "sed --posix '{x}' f",
    "sed -i.orgen -n 's/a/{x}/' f",
    "sed -n -e p -e 's/{x}/b/g; s/c/d/' f",
    "sed '{x}p' f",
    "eval echo {x}",
    "command eval echo {x}",
    "$PYTHON -c 'print({x})'",
    "python $OPTS -c 'print({x})'",
    "{y} -c {x}",
    "echo {x} | $HOME/bin/python3",
    "echo {x} | sh",
    "echo {x} | python3 -",
    "echo a {x} | sh -s b",
    "bash <<< 'a {x}'",
    "R a -e 'f({x})'",
    "echo {x} | xargs sh -c",
    "echo {x} | xargs -I% sh -c 'echo %'",
    "echo {x} | xargs -i bash -c 'echo {{}}'",
    "echo {x} | xargs --replace=@ python3 -c 'print(\"@\")'",
    "find . -exec perl -e '{x}' \\;",
    "sh -c 'python3 -c \"print({x})\"'",
]  # fmt: skip


@pytest.mark.fault(23)
@pytest.mark.parametrize("text", CODE)
def test_a_placeholder_in_code_is_refused_before_any_value_is_seen(text: str) -> None:
    with pytest.raises(UsageError, match=r"\{x\} stands in ") as caught:
        CommandTemplate(text)
    assert "DS_KEY_x" in caught.value.fix


@pytest.mark.parametrize("text", CODE)
def test_trusted_names_may_stand_in_code(text: str) -> None:
    CommandTemplate(text, trusted={"x", "y"}).check({"x": "a b (1)", "y": "c"})


SHELLS_OWN = [
    "alias a='b {x}'",
    "local a={x}",
    "unset {x}",
    "function f {{ eval echo {x}; }}",
    "declare -i a={x}",
    "test -v {x}",
    "test -{y} {x}",
    "printf -v {x} a",
    "[ {x} -eq 1 ]",
    "PS4={x} sh -xc 'echo a'",
    "PS4={x}; set -x; echo a",
    "a=1 ENV=\"$HOME/{x}\" bash -c 'echo a'",
    "if true; then BASH_ENV={x} bash -c 'echo a'; fi",
    "echo $(IFS={x} sh -c 'echo a')",
    "PATH+=:{x} sh -c 'echo a'",
    "env -i PATH=/bin:{x} tool",
    "export PATH={x}",
    "sh -c 'OPTIND={x}; echo a'",
    'while read f; do for PS4 in a {x}; do sh -x "$f"; done; done < list',
]


@pytest.mark.parametrize("text", SHELLS_OWN)
def test_names_numbers_and_variables_of_the_shell_take_harmless_values(text: str) -> None:
    template = CommandTemplate(text, allow_dash=True)
    template.check({"x": "", "y": "b-1"})
    template.check({"x": "7", "y": "b-1"})
    for value in ("$(touch pwned)", "1;x", "system('x')", "a b", '"', "'", "\n", "a[1]", "`x`"):
        with pytest.raises(UsageError, match=r"\{x\} stands .* could be taken as code") as caught:
            template.check({"x": value, "y": "b-1"})
        assert caught.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "python -c 'import sys' {x}",
        "python script.py -c {x}",
        "python -m tool -c {x}",
        "sh -c 'echo \"$1\"' _ {x}",
        "perl -e '1' -- {x}",
        'sh "$DS_PROJECT_DIR/words.sh" {x}',
        "awk -v a={x} '{ print a }' f",
        "sed -e p -- {x}",
        "export A={x}",
        "A={x} MY_PATH={x} PS={x} sh -c 'echo \"$A\"'",
        'for a in {x}; do echo "$a"; done',
        "Rscript script.R {x}",
        "cat f | python script.py {x}",
        "grep -c -e {x} f",
        "cp -r {x} d",
        "nice -n 5 test -e {x}",
        "tool --name={x} -o {x}",
        "python -u script.py -c {x}",
        "awk -F , '{{ print $1 }}' {x}",
        "python3 align.py {x}",
        "awk -f p.awk {x}",
        'awk "$PROGRAM" {x}',
        "cat f | julia --threads 4 s.jl {x}",
        "echo {x} | xargs -0 -n1 sh -c 'echo \"$1\"' _",
        "echo {x} | xargs -I% python3 align.py %",
        "bash --rcfile f -o pipefail s.sh {x}",
        "tool -c {x} -e {x} --eval={x}",
        "ssh host ls {x}",
        "make OUT={x}",
        "docker run image align --plate {x}",
    ],
)
def test_data_is_not_taken_for_code(text: str) -> None:
    for value in ("a b", "-1", "$(touch pwned)"):
        CommandTemplate(text).check({"x": value})


@pytest.mark.parametrize(
    "text",
    ["sed p {x}", "perl {x}", "bash {x} a", "perl -e 1 {x}", "printf {x} a", "python {x}", "tool --in {x}",
     "tool {x}.tif", "tool {x}{y}", "tool {y}{x}", 'tool "$A{x}"', "tool 'a' '{x} b'", "{x}", "rm -r {x} | a",
     "sh -c 'tool {x}'", "a -- b; tool {x}", "sh -c 'tool \"$1\"' _ {x}", "echo $(tool {x})"],
)  # fmt: skip
def test_a_value_with_a_dash_does_not_begin_a_word(text: str) -> None:
    template = CommandTemplate(text)
    for value in ("a b", "", "-1", "-1.5e-3", "-.5", "a-b"):
        template.check({"x": value, "y": ""})
    for value in ("-c", "--to-command=sh", "-", "-1a", "-1 -c", "-\u0661"):
        with pytest.raises(UsageError, match=r"\{x\} begins a word, and its value") as caught:
            template.check({"x": value, "y": ""})
        assert "ALLOW_DASH" in caught.value.fix
        CommandTemplate(text, allow_dash=True).check({"x": value, "y": ""})


def test_an_empty_value_does_not_make_an_option_of_the_text_behind_it() -> None:
    template = CommandTemplate("tool {x}-{y}")
    template.check({"x": "a", "y": "rf"})
    with pytest.raises(UsageError, match="begins a word"):
        template.check({"x": "", "y": "rf"})


@pytest.mark.parametrize(
    "text",
    ["tool -- {x}", "tool ./{x}", "tool --in={x}", "tool a{x}", "tool -{x}", 'tool "$DS_INPUT_DIR/{x}"',
     "x={x}; tool", "tool > {x}", "tool {input_dir}/{x}", "sh -c 'tool -- {x}'"],
)  # fmt: skip
def test_a_value_with_a_dash_is_data_behind_something_else(text: str) -> None:
    CommandTemplate(text).check({"x": "-rf", "input_dir": "/in"})


PROGRAMS = [
    "awk -v a={v} 'BEGIN {{ print a }}'",
    "printf a | sed -e p -- - {v}",
    "python3 -c 'import sys; print(sys.argv)' {v}",
    "find . -name {v} -exec sh -c 'echo {v}' \\;",
    "env A={v} sh -c 'echo \"$A\" {v}'",
    "printf %s {v} | xargs -0 -n1 sh -c 'echo \"$1\"' _",
    "printf %s {v} | xargs -0 -I% echo %",
    'printf %s {v} | cat | while read -r f; do echo "$f"; done',
    'set -- {v}; echo "$@"',
    "[ x{v} = y ] && test -n {v}",
    "nice -n 1 timeout 5 echo {v}",
    "x={v}; eval 'echo \"$x\"'",
    "export A={v}; sh -c 'echo \"$A\"'",
    "cd {v}; ls {v} > /dev/null < {v}",
    'f() {{ echo "$1"; }}; f {v}',
    "trap 'echo {v}' EXIT; echo $(echo {v})",
]


@pytest.mark.fault(23)
@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("text", PROGRAMS)
def test_no_value_runs_anything(text: str, shell: list[str], tmp_path: Path) -> None:
    """Runs every kind of hostile value in a kind of command: no file `pwned` comes to be."""
    template = CommandTemplate(text + "; :", allow_dash=True)
    values = [*NASTY, *(f"a{one}{two}" for one in NASTY[1:4] for two in NASTY[3:7])]
    script = "\n".join(f"( {template.argv({'v': value})[2]}\n)" for value in values)
    script += "\nprintf end"
    done = subprocess.run(
        [*shell, "-c", script], cwd=tmp_path, capture_output=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.stdout.endswith(b"end")
    assert not list(tmp_path.rglob("pwned"))


def test_what_no_command_line_can_carry() -> None:
    template = CommandTemplate("echo {a} {b}")
    with pytest.raises(UsageError, match=r"\{b\} holds a NUL"):
        template.check({"a": "x", "b": "y\0"})
    with pytest.raises(UsageError, match="lone surrogate"):
        template.check({"a": "x", "b": "\ud800"})
    with pytest.raises(UsageError, match="131,072 bytes"):
        template.check({"a": "x", "b": "é" * (MAX_ARGUMENT // 2 + 1)})


def test_the_longest_argument_can_be_executed(tmp_path: Path) -> None:
    argv = CommandTemplate("printf %s {a}").argv({"a": "x" * MAX_ARGUMENT})
    assert len(run(argv, tmp_path)) == MAX_ARGUMENT


def test_each_key_of_a_job_is_a_variable() -> None:
    keys = {"Plate": "P 1", "Sample ID": 3, "é": None, "list": [1], "group": {"Plate": "P 1"}}
    assert variables_of(keys) == {
        b"DS_KEY_Plate": b"P 1",
        b"DS_KEY_Sample_ID": b"3",
        b"DS_KEY__": b"",
        b"DS_KEY_list": b"[1]",
    }


def test_what_no_variable_can_hold_is_left_out() -> None:
    keys = {"nul": "\0", "half": "\ud800", "long": "x" * 60_001, "fits": "é" * 30_000, "group": "a text"}
    assert set(variables_of(keys)) == {b"DS_KEY_fits", b"DS_KEY_group"}
    many = {f"k{number}": "x" * 60_000 for number in range(50)}
    assert sum(map(len, variables_of(many).values())) == 480_000


def test_two_keys_of_one_variable_are_refused() -> None:
    check_variables(["a.b", "a", "a.b"])
    with pytest.raises(UsageError, match=r"a\.b and a b .* DS_KEY_a_b"):
        check_variables(["a.b", "a b"])
