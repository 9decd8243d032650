"""What commands of an app know of its pilots: squeue's latest answer, and what pilots have said since."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.cluster.folder import SOON_SECONDS, SQUEUE_SECONDS, AppFolder
from distributed_something.cluster.lives import Life
from distributed_something.cluster.pilots import Pilot
from distributed_something.errors import Unreachable

RUNS = Pilot("7_1", True, "RUNNING", node="n1", start=900.0)
WAITS = Pilot("7_2", False, "PENDING", "Priority")


@pytest.fixture
def app(tmp_path: Path) -> AppFolder:
    found = AppFolder(tmp_path, "App", "slurm")
    found.make()
    return found


def asked(app: AppFolder, pilots: list[Pilot], seconds: int) -> list[int]:
    """When squeue is asked, where something looks every second."""
    found = []
    for now in range(seconds):
        if app.pilots(now, []) is None:
            found.append(now)
            app.note_pilots(pilots, now, [])
    return found


def test_squeue_is_asked_at_most_twice_a_minute(app: AppFolder) -> None:
    assert asked(app, [RUNS, WAITS], 121) == [0, 30, 60, 90, 120]


def test_it_is_asked_again_soon_where_it_does_not_say_yet_why_a_pilot_waits(app: AppFolder) -> None:
    assert (SOON_SECONDS, SQUEUE_SECONDS) == (3, 30)
    assert asked(app, [WAITS._replace(reason="")], 121) == [0, 3, 60, 90, 120]


def test_a_pilot_that_begins_or_ends_is_seen_without_squeue(app: AppFolder) -> None:
    before = [Life(900, 960, False, "7_1", "n1")]
    app.note_pilots([RUNS, WAITS], 1000, before)
    later = [Life(900, 1002, True, "7_1", "n1"), Life(1001, 1001, False, "7_2", "n2")]
    first, second = app.pilots(1003, later) or ()
    assert (first.running, first.reason) == (False, "Ended")
    assert (second.running, second.node) == (True, "n2")
    assert app.pilots(1003, before) == [RUNS, WAITS]


def test_a_pilot_that_came_and_went_has_ended(app: AppFolder) -> None:
    app.note_pilots([WAITS], 1000, [])
    found = app.pilots(1003, [Life(1001, 1002, True, "7_2", "n2")])
    assert found == [WAITS]


def test_a_pointer_that_is_not_whole_yet_names_no_run(app: AppFolder) -> None:
    app.set_current("run1")
    assert app.current_run() == "run1"
    next(app.folder.glob("run-*")).write_text("ru")
    with pytest.raises(Unreachable):
        app.current_run()


def test_where_slurm_is_silent_its_last_answer_holds_for_a_while(app: AppFolder) -> None:
    assert app.pilots_without_squeue(900, [], "silent") is None
    app.note_pilots([RUNS], 1000, [])
    assert app.silent() == ""
    assert app.pilots(1040, []) is None
    assert app.pilots_without_squeue(1040, [], "the controller does not answer") == [RUNS]
    assert app.pilots(1041, []) == [RUNS]
    assert app.silent() == "the controller does not answer"
    app.note_pilots([RUNS], 1080, [])
    assert app.silent() == ""
