"""The Python API: the steps as objects, and an Executor whose futures carry the results of jobs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import services
from conftest import DsProject
from distributed_something import CallError, Executor, Project
from distributed_something.api import call
from distributed_something.errors import DsError, UsageError


@pytest.fixture
def opened(project: DsProject) -> Project:
    command = "echo hello {x}; test {x} != 2 && cp $DS_JOB {output_dir}"
    project.config(COMMAND=command, OUTPUT="out/{x}", JOB_RETRIES=1)
    return Project.open(project.folder)


def test_a_run_from_submission_to_table(capsys: pytest.CaptureFixture[str], opened: Project) -> None:
    run = opened.submit([{"x": n, "state": "mine"} for n in range(4)], shared={"y": 1}).wait()
    assert run.status().state == "finished"
    assert [line["state"] for line in run.jobs()] == ["succeeded", "succeeded", "dead", "succeeded"]
    assert [line["job"] for line in run.jobs("dead")] == [{"y": 1, "group": {"x": 2, "state": "mine"}}]
    [group] = run.failures()
    assert (group.cause, group.dead, group.ids) == ("exit", 1, [line["id"] for line in run.jobs("dead")])
    table = run.table()
    assert table.columns[:4] == ["job.state", "x", "id", "state"]
    assert [(row["x"], row["output"]) for row in table][:3] == [(0, "out/0"), (1, "out/1"), (2, None)]
    assert run.log("2") == "hello 2\n"
    assert "<th>job.state</th>" in table._repr_html_()
    shown = run._repr_html_()
    assert "4/4 jobs" in shown
    assert "<td>exit</td>" in shown
    assert repr(run).startswith(f"<Run {run.id}: 4/4 jobs")
    out, err = capsys.readouterr()
    assert out == ""
    assert "4 jobs submitted" in err
    assert "next: " not in err


def test_values_of_jobs_are_no_html(opened: Project) -> None:
    run = opened.submit([{"x": "<script>"}]).wait(progress=False)
    assert "&lt;script&gt;" in run.table()._repr_html_()
    assert "<script>" not in run._repr_html_() + run.table()._repr_html_()


def test_it_is_silent_if_asked_to_be(opened: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = opened.submit([{"x": 1}])
    capsys.readouterr()
    run.wait(progress=False)
    assert capsys.readouterr() == ("", "")


def test_runs_of_the_project_the_newest_first(opened: Project, project: DsProject) -> None:
    project.jobs([{"x": 1}])
    first = opened.submit("files/jobs.json").wait()
    second = opened.submit([{"x": 7}]).wait()
    assert [run.id for run in opened.runs()] == [second.id, first.id]
    assert opened.run(first.id[:-1]).table()[0]["x"] == 1
    assert opened.run().id == second.id
    assert first.wait() is first, "an earlier run has nothing to wait for"
    assert project.status()["run"] == second.id


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([{"y": 1}], "x"),
        ([], "no jobs"),
        ([{"x": {1, 2}}, {"x": object()}], "job 1: cannot be written as JSON"),
    ],
)
def test_jobs_that_do_not_fit_are_refused_before_anything_is_made(
    opened: Project, project: DsProject, jobs: list[dict[str, object]], said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        opened.submit(jobs)
    assert said in refused.value.what
    assert opened.runs() == []
    assert [*(project.folder / ".ds").glob("jobs-*")] == []


def test_a_second_run_waits_for_the_first(opened: Project) -> None:
    run = opened.submit([{"x": 1}])
    with pytest.raises(DsError, match="is under way"):
        opened.submit([{"x": 3}])
    run.wait()


def test_importing_the_package_loads_next_to_nothing() -> None:
    count = "print(len(sys.modules))"
    script = f"import sys; import distributed_something as d; {count}; d.Project, d.Run, d.Executor"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    bare = subprocess.run([sys.executable, "-c", f"import sys; {count}"], capture_output=True, text=True)
    assert int(done.stdout.split()[0]) - int(bare.stdout) <= 2


# -- Executor


def difference(one: int, *, other: int = 0) -> int:
    print(f"from {one}")
    if one < 0:
        raise ValueError(f"{one} is negative")
    return one - other


def killed(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def tries(file: str) -> int:
    with Path(file).open("a") as log:
        log.write("x")
    if Path(file).stat().st_size < 2:
        raise OSError("not yet")
    return Path(file).stat().st_size


def large() -> bytes:
    return bytes(call.RESULT_BYTES)


def test_futures_carry_results_and_failures() -> None:
    factor = 3
    with Executor(max_workers=2) as pool:
        futures = [pool.submit(difference, n, other=1) for n in (5, 6, -1)]
        closure = pool.submit(lambda n: n * factor, 7)
        dead = pool.submit(killed, 1)
        too_large = pool.submit(large)
        same = [pool.submit(time.time_ns) for _ in range(2)]
        assert [future.result() for future in futures[:2]] == [4, 5]
        assert closure.result() == 21
        assert len({future.result() for future in same}) == 2, "equal calls are two calls"
        with pytest.raises(CallError, match="difference: exit: ValueError: -1 is negative") as failed:
            futures[2].result()
        assert failed.value.log.startswith("from -1\nTraceback")
        with pytest.raises(CallError, match="killed: signal: "):
            dead.result()
        with pytest.raises(CallError, match=r"the result is too large: 67,108,8\d\d bytes"):
            too_large.result()
        assert [*pool.map(math.sqrt, range(30))][25] == 5.0
    assert pool._temporary is not None
    assert not pool._temporary.exists()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(difference, 1)


def test_a_call_that_cannot_be_sent_is_refused_at_once() -> None:
    with Executor() as pool:
        with pytest.raises(UsageError, match="its call is too large: "):
            pool.submit(len, bytes(1 << 20))
        with pytest.raises(UsageError, match="difference: cannot be pickled"):
            pool.submit(difference, threading.Lock())  # type: ignore[arg-type]


def test_calls_run_by_the_rules_of_their_project(project: DsProject, tmp_path: Path) -> None:
    project.config(COMMAND="true", JOB_RETRIES=2, BACKOFF=0.01, JOB_TIMEOUT=2, ENVIRONMENT={"WORD": "mine"})
    with Executor(project.folder) as pool:
        assert pool.submit(os.getenv, "WORD").result() == "mine"
        assert pool.submit(tries, str(tmp_path / "tries")).result() == 2
        with pytest.raises(CallError, match="timeout: ran longer than JOB_TIMEOUT"):
            pool.submit(time.sleep, 60).result()
        with pytest.raises(DsError, match="is under way"), Executor(project.folder) as second:
            second.submit(len, "x").result()
    calls = json.loads(project.ds("-C", project.folder / ".ds/calls", "status", "--json").stdout)
    assert (calls["app"], calls["jobs"]["succeeded"], calls["jobs"]["dead"]) == ("App-calls", 2, 1)
    assert calls["machines"]["running"] == 0
    assert not [*project.folder.glob("data/calls/*/*")], "the futures have the results"
    assert project.ds("runs").stdout == "", "the project's own runs are others"


def test_calls_that_are_not_queued_yet_can_be_cancelled() -> None:
    pool = Executor()
    pool._thread = type("Never", (), {"join": lambda self: None})()  # nothing is queued
    future = pool.submit(len, "x")
    pool.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        future.result(0)
    pool._remove_folder()


def test_another_python_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as refused:
        call.call("", "2.7", tmp_path)
    assert str(refused.value) == f"the call was pickled by Python 2.7, and the worker's is {call.version()}"


def test_a_program_that_forgets_to_shut_down_ends_with_its_calls(tmp_path: Path) -> None:
    script = "from distributed_something import Executor; f = Executor().submit(pow, 2, 5); print(f.result())"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "32\n")
    assert [*tmp_path.glob("ds-calls-*")] == []


def test_without_cloudpickle_one_line_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "cloudpickle.py").write_text("raise ImportError\n")
    script = "from distributed_something import Executor; Executor()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert "cloudpickle is not installed: an Executor sends functions by it" in done.stderr


def test_the_example_notebook_runs(tmp_path: Path) -> None:
    services.require("jupyter")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(Path(__file__).parents[2] / "docs/notebook.ipynb", 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "PATH": path})
    said = "\n".join(text for cell in notebook.cells if cell.cell_type == "code" for text in outputs_of(cell))
    assert "24/24 jobs" in said
    assert "<td>input-missing</td>" in said
    assert "0/24 jobs" not in said, "the live line is replaced, not repeated"


def outputs_of(cell: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    return [str(output.get("text") or output.get("data") or output) for output in cell["outputs"]]
