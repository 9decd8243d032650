"""Keeps a model for each run that the page shows, lists the runs, and compares two. `server` calls it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..steps.project import Project
from ..words import duration, money
from .model import Model

KEPT = 4  # number of earlier runs whose models are kept
LIST_SECONDS = 10.0  # time for which the list of runs is kept, in seconds: an ended run does not change


class Runs:
    """The runs of a project. `opened` opens the project; with a run's id, it looks at that run."""

    def __init__(self, opened: Callable[[str | None], Project]) -> None:
        self.opened = opened
        self.current = Model(lambda: opened(None))
        self._models: dict[str, Model] = {}
        self._lock = threading.Lock()
        self._listed: tuple[float, list[dict[str, Any]]] = (0.0, [])

    def of(self, run: str) -> Model:
        """Returns the model of a run; empty: of the current one. Raises UsageError if there is none."""
        if not run:
            return self.current
        with self._lock:
            model = self._models.pop(run, None)
            if model is None:
                self.opened(None).find_run(run)
                model = Model(lambda: self.opened(run), past=True)
            self._models[run] = model  # the latest one is the last
            for old in [*self._models][:-KEPT]:
                del self._models[old]
            return model

    def list(self) -> list[dict[str, Any]]:
        """Returns a line for each run, the newest first."""
        from ..steps.look.runs import all_runs

        with self._lock:
            made, found = self._listed
            if not found or time.monotonic() - made > LIST_SECONDS:
                project = self.opened(None)
                current = project.current_run()
                found = [_line(each._asdict(), current) for each in all_runs(project)]
                self._listed = (time.monotonic(), found)
            return found

    def compare(self, one: str, other: str) -> dict[str, Any]:
        """Returns what differs between two runs. Raises UsageError if there is no such run."""
        from ..steps.look.runs import compare

        project = self.opened(None)
        found = compare(project, project.find_run(one), project.find_run(other))
        found["time"] = [None if each is None else duration(each) for each in found["seconds"]]
        found["cost"] = [None if each is None else money(each) for each in found["cost_usd"]]
        return found


def _line(facts: dict[str, Any], current: str | None) -> dict[str, Any]:
    return {
        **facts,
        "current": facts["run"] == current,
        "time": None if facts["seconds"] is None else duration(facts["seconds"]),
        "cost": None if facts["cost_usd"] is None else money(facts["cost_usd"]),
    }
