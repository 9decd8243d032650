"""Two thousand failures read as a few problems: the telling line of real logs, and what is alike."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths
from distributed_something.local.store import FolderStore
from distributed_something.report.alike import VARIED, fold_line, merge_varied, telling_line
from distributed_something.report.failures import group_failures

PYTHON = """reading {path}
Traceback (most recent call last):
  File "/opt/measure.py", line {n}, in <module>
    main(sys.argv[1])
    ^^^^^^^^^^^^^^^^^
  File "/opt/measure.py", line 7, in main
    return float(text)
ValueError: could not convert string to float: '{word}'
"""
CHAINED = """Traceback (most recent call last):
  File "a.py", line 3, in f
    return cache[key]
KeyError: {n}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 9, in <module>
    f()
skimage.io.ImageError: no page {n} in {path}
closing 3 files
"""
R = """Loading required package: EBImage
Error in readImage("{path}") :
  file {word}.tif not found
Calls: main -> readImage
Execution halted
"""
JAVA = """INFO  started {n}
Exception in thread "main-{n}" java.lang.RuntimeException: plate {n} failed
\tat org.lab.Plate.run(Plate.java:{n})
\tat org.lab.Main.main(Main.java:12)
Caused by: java.io.FileNotFoundException: {path} (No such file or directory)
\tat java.base/java.io.FileInputStream.open0(Native Method)
\t... 12 more
"""
SHELL = """+ convert {path} out.png
convert: unable to open image `{path}': No such file or directory @ error/blob.c/OpenBlob/{n}.
make: *** [Makefile:3: out.png] Error 1
"""
GROUP = """Traceback (most recent call last):
  + Exception Group Traceback (most recent call last):
  |   File "a.py", line {n}, in <module>
  |     main()
  | ExceptionGroup: two plates failed (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ExceptionGroup: one of them (1 sub-exception)
    +-+---------------- 1 ----------------
      | Traceback (most recent call last):
      |   File "a.py", line 3, in read
      | ValueError: no number in {path}
      +------------------------------------
    +---------------- 2 ----------------
    | KeyError: {n}
    +------------------------------------
"""
LOGS = {
    PYTHON: "ValueError: could not convert string to float:",
    CHAINED: "skimage.io.ImageError: no page",
    R: "Error in readImage(",
    JAVA: "Caused by: java.io.FileNotFoundException:",
    SHELL: "convert: unable to open image",
}  # fmt: skip


def filled(log: str, seed: int) -> str:
    dice = random.Random(seed)
    word = "".join(dice.choices("abcxyz", k=6))
    return log.format(n=dice.randrange(10**6), word=word, path=f"/data/{word}/p{dice.randrange(99)}.tif")


@pytest.mark.fault(63)
def test_a_group_of_exceptions_is_told_by_its_first_leaf() -> None:
    assert telling_line(filled(GROUP, 1)).startswith("ValueError: no number in")


@pytest.mark.parametrize("log", LOGS)
def test_the_line_that_tells_why_is_found(log: str) -> None:
    assert telling_line(filled(log, 1)).startswith(LOGS[log])


def test_an_error_of_r_is_told_with_the_line_that_it_goes_on_in() -> None:
    assert telling_line("Error in f(x) :\n  object 'y' not found\nExecution halted") == (
        "Error in f(x) : object 'y' not found"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n\n[ds] note\n", "b"),
        ("[ds] note\n", "[ds] note"),
        ("", ""),
        ("10 %\r50 %\rout of paper\r\n", "out of paper"),
        ("\x1b[31mERROR\x1b[0m no plate", "ERROR no plate"),
        ("Execution halted\n", "Execution halted"),
        (
            "ValueError: early, and handled\n" + "working on it\n" * 60 + "licence expired\n",
            "licence expired",
        ),
    ],
)
def test_the_telling_line_of_plain_texts(text: str, line: str) -> None:
    assert telling_line(text) == line


def test_two_thousand_failures_are_five_problems(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    ledger, at = LedgerWriter(store, paths.events + "w"), 0
    for number in range(2000):
        text = filled(list(LOGS)[number % 5], number).encode()
        store.append(paths.logs + "w-0.log", text)
        outcome = Outcome(State.WAITING, Cause.EXIT, "exit code 1", 1, log=f"w-0.log@{at}+{len(text)}")
        lease = Lease(Job(f"{number:016x}", number, b"{}"), "", 0)
        ledger.ended("dead", 100.0 + number, lease, outcome)
        at += len(text)
    ledger.flush()
    groups = group_failures(store, paths, Fold(store, paths).update().jobs.values())
    assert [(len(group.ids), group.dead) for group in groups] == [(400, 400)] * 5
    assert sorted(group.example.partition(" ")[0] for group in groups) == sorted(
        line.partition(" ")[0] for line in LOGS.values()
    )


def test_what_was_read_once_is_not_read_again(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    lease = Lease(Job("0" * 16, 0, b"{}"), "", 0)
    ledger = LedgerWriter(store, paths.events + "w")
    store.append(paths.logs + "w", b"no paper\n")
    ledger.ended("dead", 1, lease, Outcome(State.WAITING, Cause.EXIT, log="w@0+9"))
    ledger.flush()
    records, said = Fold(store, paths).update().jobs.values(), {}
    first = group_failures(store, paths, records, said)
    store.delete([paths.logs + "w"])
    again = group_failures(store, paths, records, said)
    assert [group.example for group in group_failures(store, paths, records)] != ["no paper"]
    assert [group.example for group in (*first, *again)] == ["no paper", "no paper"]


def test_no_more_logs_are_read_at_a_time_than_wanted(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path), RunPaths("App", "run")
    ledger = LedgerWriter(store, paths.events + "w")
    store.append(paths.logs + "w", b"no paper\n")
    for number in range(5):
        lease = Lease(Job(f"{number:016x}", number, b"{}"), "", 0)
        ledger.ended("dead", 1, lease, Outcome(State.WAITING, Cause.EXIT, log="w@0+9"))
    ledger.flush()
    records, said = Fold(store, paths).update().jobs.values(), {}
    sizes = [
        {group.example: len(group.ids) for group in group_failures(store, paths, records, said, 2)}
        for _ in range(3)
    ]
    assert sizes == [
        {"no paper": 2, "(not read yet)": 3},
        {"no paper": 4, "(not read yet)": 1},
        {"no paper": 5},
    ]


def test_many_words_at_one_place_are_values_and_few_are_different_problems() -> None:
    names = ["Ada", "Bo", "Cy", "Di", "Ed"]
    many = [("exit", f"no licence for {name}") for name in names]
    assert len(set(merge_varied(many).values())) == 1
    few = many[: VARIED - 1]
    assert merge_varied(few) == {key: key for key in few}
    other_causes = [(f"cause{at}", "no licence for {name}") for at, name in enumerate(names)]
    assert len(set(merge_varied(other_causes).values())) == VARIED


def test_a_line_of_the_worst_kind_folds_in_no_time() -> None:
    began = time.process_time()
    for line in ("a" * 100_000, "/" * 100_000, "'" * 100_001, "a.b-" * 25_000, '"' + "\\" * 100_000):
        telling_line(line)
        fold_line(line)
    assert time.process_time() - began < 1


words = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=6), st.integers(0), st.integers(0))
def test_numbers_paths_and_quoted_values_do_not_tell_failures_apart(
    said: list[str], one: int, other: int
) -> None:
    def line(n: int) -> str:
        return f"{' '.join(said)} {n} at /data/p{n}/x{n}.tif: '{n} a{n}' is 0x{n:x} of plate_{n}_B{n}"

    assert fold_line(line(one)) == fold_line(line(other))


@given(st.lists(words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6))
def test_different_words_stay_apart(one: list[str], other: list[str]) -> None:
    hexadecimal = any(len(word) >= 8 for word in (*one, *other))
    assert (fold_line(" ".join(one)) == fold_line(" ".join(other))) == (one == other) or hexadecimal


@given(st.text())
def test_any_text_has_a_telling_line_that_folds_once_and_for_all(text: str) -> None:
    line = telling_line(text)
    assert "\n" not in line
    folded = fold_line(line)
    assert fold_line(folded) == folded


@given(st.lists(st.tuples(st.sampled_from(["exit", "signal"]), st.lists(words, max_size=4).map(" ".join))))
def test_every_line_belongs_to_one_problem_of_its_kind(keys: list[tuple[str, str]]) -> None:
    merged = merge_varied(keys)
    assert merged.keys() == set(keys)
    assert all(problem[0] == key[0] for key, problem in merged.items())
