"""Changes the run as the page's buttons ask: stop, retry, take out. `server` calls it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import DsError
from ..steps.project import Project
from ..words import many
from .model import NotFound
from .runs import Runs
from .select import asked

Body = Mapping[str, Any]


class Actions:
    """What the page can do to the current run. Each opens the project anew, as its files may have changed."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._model = runs.current

    def _opened(self) -> Project:
        return self._runs.opened(None)

    def stop(self, body: Body) -> str:
        """Stops the workers. Returns at once; they drain."""
        now = body.get("now") is True
        self._opened().engine.stop(now=now)
        self._model.look_again()
        return "running jobs go back to the queue" if now else "no new jobs start; running ones finish"

    def retry(self, body: Body) -> str:
        """Puts dead jobs back; with `start`, asks for machines if there are none. Raises NotFound."""
        from ..steps.retry import retry

        project = self._opened()
        back = retry(project, (), self._ids(body))
        self._model.look_again()
        said = f"{many(len(back), 'job')} put back"
        if not back or project.engine.machines().running:
            return said
        if body.get("start") is not True:
            return f"{said}; no worker is running: ds start, then ds monitor"
        return f"{said}; {self._start(project)}"

    def drop(self, body: Body) -> str:
        """Takes jobs out of the run. Raises NotFound."""
        from ..steps.retry import drop

        out, left = drop(self._opened(), self._ids(body))
        self._model.look_again()
        stay = f"; {many(len(left), 'job', 'stays', 'stay')}: {', '.join(sorted({*left.values()}))}"
        return f"{many(len(out), 'job')} taken out of the run{stay if left else ''}"

    def offer(self, jobs: int) -> dict[str, Any]:
        """Returns what starting machines for so many jobs more will cost, in words; empty: nothing."""
        from ..steps.start import cost_of_rest

        return {"cost": list(cost_of_rest(self._opened(), None, jobs))}

    def _ids(self, body: Body) -> Collection[str]:
        """Returns the ids of the jobs that a request names: a group of failures, a selection, or ids."""
        if "cause" in body:
            return self._model.group_ids(str(body["cause"]), str(body.get("example")))
        if isinstance(query := body.get("selected"), dict):
            if not (found := self._model.ids(asked(query))):
                raise NotFound
            return found
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            raise NotFound
        return self._model.known([str(each) for each in ids])

    def _start(self, project: Project) -> str:
        from ..steps.start import start

        try:
            start(project, None)
        except DsError as error:
            return f"no machine was started: {error.what}. To do: {error.fix}"
        if project.config.engine_kind.rents:
            return "machines were asked for; ds monitor ends them when all is done"
        return "workers were started"
