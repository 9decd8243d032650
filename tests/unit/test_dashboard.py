"""The page's server: who is let in, what may be asked, and what a job's files can do (nothing)."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest

from distributed_something.console import Console
from distributed_something.dashboard.files import how_shown
from distributed_something.dashboard.model import Model
from distributed_something.dashboard.runs import Runs
from distributed_something.dashboard.server import PIECE_BYTES, PageServer
from distributed_something.dashboard.show import overview
from distributed_something.engine import Cost, Counts, Machines, RentedMachine, StoredFile
from distributed_something.errors import KeyMissing
from distributed_something.job import Cause, Job, Lease, Outcome, State
from distributed_something.ledger import Fold, LedgerWriter, RunPaths, write_jobs
from distributed_something.local.store import FolderStore
from distributed_something.runs.snapshot import take
from distributed_something.steps.project import Project
from synthetic import RUN, write_run

TOKEN = "token-of-thirty-two-characters-000"
OPENED = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Page:
    """A server over a project, and requests to it as a browser would send them, or somebody else."""

    def __init__(self, folder: Path) -> None:
        (folder / "config.py").write_text(
            "APP_NAME = 'App'\nENGINE = 'local'\nINPUTS = ['raw/{Plate}.png']\n"
        )
        self.folder = folder
        self.server = PageServer(Runs(lambda run: Project.open(folder, Console(), run=run)), TOKEN, 0)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": self.host, **given})
        found = connection.getresponse()
        answer = Answer(found.status, dict(found.getheaders()), found.read())
        connection.close()
        return answer

    def get(self, path: str, **query: object) -> Answer:
        return self.ask(f"/{TOKEN}/{path}?{urlencode(query)}")

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.ask(f"/{TOKEN}/{path}", "POST", json.dumps(body).encode(), **headers)

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    found = Page(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/api/overview", {}),
        (f"/{TOKEN}", {}),
        ("/wrong/api/overview", {}),
        (f"/{TOKEN[:-1]}/api/overview", {}),
        (f"/{TOKEN}/api/overview", {"Host": "evil.example"}),
        (f"/{TOKEN}/api/overview", {"Host": "127.0.0.1.evil.example:80"}),
        (f"/{TOKEN}/api/overview", {"Host": ""}),
        (f"/{TOKEN}/api/overview", {"Origin": "http://evil.example"}),
        (f"/{TOKEN}/api/overview", {"Origin": "null"}),
        (f"/{TOKEN}/api/overview", {"Sec_Fetch_Site": "cross-site"}),
        (f"/{TOKEN}/api/overview", {"Sec_Fetch_Site": "cross-site", **OPENED}),
        (f"/{TOKEN}/", {"Sec_Fetch_Site": "cross-site"}),
        (f"/{TOKEN}/", {"Sec_Fetch_Site": "cross-site", **OPENED, "Sec_Fetch_Dest": "iframe"}),
        ("/wrong/", {"Sec_Fetch_Site": "cross-site", **OPENED}),
        (f"/{TOKEN}/", {"Sec_Fetch_Site": "cross-site", **OPENED, "Host": "evil.example"}),
        (f"/{TOKEN}/index.html", {"Host": "localhost@evil.example"}),
    ],
)
def test_who_is_not_let_in(page: Page, path: str, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        found = page.ask(path, method, b"{}", X_Token=TOKEN, **headers)
        assert found.status == 403
        assert TOKEN.encode() not in found.body


def test_a_link_opens_the_page(page: Page) -> None:
    assert page.ask(f"/{TOKEN}/", Sec_Fetch_Site="cross-site", **OPENED).status == 200


def test_a_forwarded_port_is_let_in(page: Page) -> None:
    assert page.ask(f"/{TOKEN}/", Host="localhost:9999", Origin="http://localhost:9999").status == 200


def test_the_page_listens_on_this_machine_only(page: Page) -> None:
    assert page.server.server_address[0] == "127.0.0.1"


def test_what_changes_a_run_is_never_a_link_or_a_form(page: Page) -> None:
    assert page.get("api/stop").status == 404
    assert page.post("api/stop", {}).status == 403
    assert page.post("api/stop", {}, X_Token="wrong").status == 403
    assert page.post("api/stop", {"now": False}, X_Token=TOKEN).status == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 50_000])
def test_a_broken_body_is_refused(page: Page, body: bytes) -> None:
    assert page.ask(f"/{TOKEN}/api/retry", "POST", body, X_Token=TOKEN).status == 400


def test_a_body_of_unknown_or_great_length_is_not_read(page: Page) -> None:
    for length in ("-1", "9999999999", "x", "1e3"):
        found = page.ask(f"/{TOKEN}/api/stop", "POST", None, X_Token=TOKEN, Content_Length=length)
        assert found.status == 400


def test_every_answer_is_strict(page: Page) -> None:
    for path in ("", "app.js", "look.css", "api/overview", "nothing"):
        headers = page.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


def test_the_page_is_complete_in_itself(page: Page) -> None:
    text = page.get("").body + page.get("app.js").body + page.get("app.css").body + page.get("look.css").body
    assert b"https:" not in text.replace(b"http://www.w3.org", b"")
    assert page.get("../server.py").status == page.get("static/app.js").status == 404


def test_a_project_without_a_run_says_so(page: Page) -> None:
    assert page.get("api/overview").json["run"] is None
    assert page.get("api/jobs").status == 409


def test_a_config_that_was_broken_for_a_while_does_no_lasting_harm(page: Page) -> None:
    write_run(page.folder, "App", 10)
    model, config = page.server.runs.current, page.folder / "config.py"
    assert model.overview()["jobs"]["total"] == 10
    good = config.read_text()
    for text, wrong in (("APP_NAME = 1 +", True), (good, False), ("APP_NAME = ''", True), (good, False)):
        config.write_text(text)
        model.look_again()
        assert bool(model.overview()["error"]) is wrong
        assert model.overview()["jobs"]["total"] == 10  # what was known stays in sight


def test_nothing_new_is_not_sent_again(page: Page) -> None:
    write_run(page.folder, "App", 100)
    first = page.get("api/jobs", state="dead")
    again = page.ask(f"/{TOKEN}/api/jobs?state=dead", If_None_Match=first.headers["ETag"])
    assert (first.status, again.status, again.body) == (200, 304, b"")


def test_jobs_are_filtered_searched_ordered_and_paged(page: Page) -> None:
    write_run(page.folder, "App", 1000)
    assert page.get("api/overview").json["jobs"]["dead"] == 20

    def found(**query: object) -> Any:
        return page.get("api/jobs", **query).json

    assert (found()["total"], found()["pages"], len(found()["rows"])) == (1000, 10, 100)
    assert found(page=10)["rows"][-1]["index"] == "999"
    assert found(page=99)["page"] == 10
    assert found(state="dead")["total"] == 20
    assert found(state="dead", cause="timeout")["total"] == 0
    assert found(q="br00003")["total"] == 96
    assert found(q="BR00003 m4")["total"] == len([n for n in range(288, 384) if n % 10 == 4])
    assert [row["index"] for row in found(q=found()["rows"][7]["id"][:12])["rows"]] == ["7"]
    assert found(q="no such thing")["total"] == 0
    slow = found(order="-time")["rows"]
    assert slow[0]["time"] == "11 s"
    for odd in (
        {"q": "\\\"'<>%_*"},
        {"order": "__class__"},
        {"state": "x"},
        {"page": "-1"},
        {"page": "9" * 50},
    ):
        assert "rows" in found(**odd)


def test_each_key_of_the_jobs_is_a_column_to_sort_and_filter_by(page: Page) -> None:
    write_run(page.folder, "App", 1000)

    def found(**query: object) -> Any:
        return page.get("api/jobs", **query).json

    first = found()
    assert first["keys"] == ["Plate", "Well"]
    assert first["rows"][0]["keys"] == ["BR00000", "0"]
    wells = [row["keys"][1] for row in found(order="key:Well", page=10)["rows"]]
    assert wells == sorted(wells, key=int)  # numbers are sorted as numbers
    assert found(order="-key:Well")["rows"][0]["keys"] == ["BR00009", "95"]
    assert found(q="Well=95")["total"] == 10
    assert found(q="Well=9")["total"] == 11
    assert found(q='Plate="BR00003" Well=5')["rows"][0]["index"] == "293"
    assert found(q="Well=95 Plate=none")["total"] == found(q="None=1")["total"] == 0
    assert found(machine="m3")["total"] == 100
    assert found(machine="m3", state="dead", order="-key:Plate")["total"] == 0
    assert found(order="-index")["rows"][0]["index"] == "999"
    times = [row["time"] for row in found(order="time", state="dead")["rows"]]
    assert len(times) == 20
    write_run(page.folder, "App", 1200)  # jobs that come later are found too
    page.server.runs.current.look_again()
    page.get("api/overview")
    assert found(q="Well=95")["total"] == 12


def test_jobs_are_saved_as_csv(page: Page) -> None:
    write_run(page.folder, "App", 12_000)
    answer = page.get("jobs.csv", state="dead")
    assert answer.headers["Content-Disposition"] == "attachment; filename=jobs.csv"
    lines = answer.body.decode().splitlines()
    assert lines[0].startswith("index,id,state,attempts,cause,exit_code,seconds,max_rss_bytes,machine,output")
    assert lines[0].endswith(",Plate,Well")
    assert lines[1].endswith(",BR00000,49")
    assert len(lines) == 1 + 240
    assert len(page.get("jobs.csv").body.splitlines()) == 12_001
    ids = [line.split(",")[1] for line in lines[1:4]]
    assert len(page.get("jobs.csv", ids=",".join(ids)).body.splitlines()) == 4
    assert page.get("jobs.csv", run="none").status == 409


def test_a_timeline_shows_whole_times_only(page: Page) -> None:
    write_run(page.folder, "App", 5000)
    found = page.get("api/timeline").json["timeline"]
    kinds = {bar[2] for lane in found["lanes"] for bar in lane["bars"]}
    assert kinds == {"succeeded", "failed", "dead"}
    assert "earlier attempts are left out" in found["note"]
    assert found["axis"][0] != "0"  # it begins with the first attempt that is shown
    first = min(bar[0] for lane in found["lanes"] for bar in lane["bars"] if bar[2] == "succeeded")
    assert first < 200  # of 1000: failures do not reach back further than what succeeded
    for lane in found["lanes"]:
        places = [(at, at + wide) for at, wide, *_ in lane["bars"]]
        assert all(0 <= at <= end <= 1000.01 for at, end in places)


def test_a_small_run_does_not_hide_the_dead_jobs_of_the_one_before(page: Page) -> None:
    write_run(page.folder, "App", 100)
    store, later = FolderStore(page.folder / "data"), RunPaths("App", "20261114T221320Z-0000")
    lease = Lease(Job("a" * 16, 0, b'{"group":{}}'), "", 0)
    write_jobs(store, later.jobs + "a", [lease.job])
    ledger = LedgerWriter(store, later.events + "w")
    ledger.ended("succeeded", 10, lease, Outcome(State.SUCCEEDED, seconds=1))
    ledger.flush()
    found = page.get("api/overview").json
    assert found["headline"] == {"state": "finished", "tone": "good", "sentence": "1 of 1 succeeded"}
    assert found["story"]["wrong"] == [f"2 jobs are dead in the run before, {RUN}, and no part of this one"]
    runs = page.get("api/runs").json["runs"]
    assert [(each["run"], each["current"], each["jobs"]["dead"]) for each in runs] == [
        (later.run, True, 0),
        (RUN, False, 2),
    ]
    past = page.get("api/overview", run=RUN).json
    assert (past["run"], past["jobs"]["dead"], past["story"]["next"]) == (RUN, 2, [])
    assert page.get("api/jobs", run=RUN, state="dead").json["total"] == 2
    dead = page.get("api/jobs", run=RUN, state="dead").json["rows"][0]["id"]
    place = page.get("api/job", run=RUN, id=dead).json["job"]["log"]
    log = page.get("api/log", run=RUN, id=dead, place=place).json
    assert log["error"].startswith("ValueError: bad value")
    both = page.get("api/compare", one=RUN, other=later.run).json
    assert (both["jobs"]["only_first"]["count"], both["jobs"]["both"]) == (100, 0)
    assert page.get("api/compare", one=RUN, other="../x").status == 409
    for run in ("none", "../..", "2023"):
        assert page.get("api/overview", run=run).status in (409, 200)
    assert page.post("api/retry", {"ids": [dead]}, X_Token=TOKEN).status == 404  # not of the current run


def test_a_small_picture_is_made_once(page: Page, finished: str) -> None:
    image = pytest.importorskip("PIL.Image")
    store = FolderStore(page.folder / "data")
    for name, mode in (("plane.tif", "I;16"), ("big.png", "RGB")):
        image.effect_noise((900, 700), 60).convert("L").convert(mode).save(page.folder / name)
        store.write(f"out/P1/{name}", (page.folder / name).read_bytes())
    store.write("out/P1/broken.tif", b"II*" + b"x" * 100)
    for name in ("plane.tif", "big.png"):
        answer = page.get("thumbnail", id=finished, key=f"out/P1/{name}")
        assert answer.status == 200
        assert (answer.headers["Content-Type"], answer.body[:4]) == ("image/png", b"\x89PNG")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert page.get("thumbnail", id=finished, key=f"out/P1/{name}").body == answer.body
    kept = [*(page.folder / ".ds/App.thumbs").glob("*.png")]
    assert len(kept) == 2
    with image.open(kept[0]) as small:
        assert max(small.size) == 320
    for name in ("broken.tif", "none.png", "page.html"):
        assert page.get("thumbnail", id=finished, key=f"out/P1/{name}").status == 404


@pytest.mark.parametrize("layout", ["", "0", "plate"])
@pytest.mark.parametrize("form", [2, 3])
def test_an_ome_zarr_image_has_a_small_picture(page: Page, finished: str, form: Any, layout: str) -> None:
    zarr, image = pytest.importorskip("zarr"), pytest.importorskip("PIL.Image")
    place = page.folder / "data/out/P1/x.zarr"
    inside = {"": "", "0": "0", "plate": "A/1/0"}[layout]
    root = zarr.open_group(place, mode="w", zarr_format=form)
    group = zarr.open_group(place / inside, mode="w" if inside else "r+", zarr_format=form)
    described = [
        {"axes": [{"name": name} for name in "czyx"], "datasets": [{"path": str(n)} for n in (0, 1)]}
    ]
    ours: dict[str, Any] = {"multiscales": described}
    group.update_attributes(ours if form == 2 else {"ome": ours})
    for number, size in enumerate((900, 450)):
        level = group.create_array(str(number), shape=(2, 3, size, size), chunks=(1, 1, 300, 300), dtype="u2")
        level[0, 1, size // 2 :] = 4000  # the lower half of the middle plane
    if layout == "plate":
        root.update_attributes({"plate": {"wells": [{"path": "A/1"}]}})
        well = zarr.open_group(place / "A/1", mode="a", zarr_format=form)
        well.update_attributes({"well": {"images": [{"path": "0"}]}})
    answer = page.get("thumbnail", id=finished, key="out/P1/x.zarr")
    assert answer.status == 200, answer.body
    with image.open(io.BytesIO(answer.body)) as small:
        assert small.size == (320, 320)
        assert [small.getpixel((160, y))[0] for y in (10, 310)] == [0, 255]
    assert page.get("file", id=finished, key="out/P1/x.zarr").status == 404
    shown = page.get("api/job", id=finished).json["outputs"]
    assert [each["key"] for each in shown if each["kind"] == "folder"] == ["out/P1/x.zarr"]
    pictures = page.get("api/timeline").json["pictures"]
    assert pictures[0]["key"] == "out/P1/x.zarr"
    level[0, 1, : size // 2] = 4000
    again = page.get("thumbnail", id=finished, key="out/P1/x.zarr")
    assert again.body != answer.body  # never the picture of an earlier content


def test_an_array_that_would_run_what_it_holds_has_no_picture(page: Page, finished: str) -> None:
    zarr = pytest.importorskip("zarr")
    place, ran = page.folder / "data/out/P1/x.zarr", page.folder / "ran"
    group = zarr.open_group(place, mode="w", zarr_format=2)
    group.update_attributes({"multiscales": [{"datasets": [{"path": "0"}]}]})
    (place / "0").mkdir()
    facts = {"zarr_format": 2, "shape": [1, 1], "chunks": [1, 1], "dtype": "|O", "fill_value": None}
    facts |= {"order": "C", "compressor": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (place / "0/.zarray").write_text(json.dumps(facts))
    text = f"c__builtin__\nopen\n(V{ran}\nVw\ntR."
    (place / "0/0.0").write_bytes(text.encode())
    for kind in ("|O", "<u2"):
        (place / "0/.zarray").write_text(json.dumps({**facts, "dtype": kind}))
        assert page.get("thumbnail", id=finished, key="out/P1/x.zarr").status == 404
    (place / ".zattrs").write_text(json.dumps({"multiscales": [{"datasets": [{"path": "../../../.."}]}]}))
    assert page.get("thumbnail", id=finished, key="out/P1/x.zarr").status == 404
    assert not ran.exists()


def test_failures_are_groups_and_lead_to_their_jobs(page: Page) -> None:
    write_run(page.folder, "App", 1000)
    groups = page.get("api/failures").json["groups"]
    assert [(group["jobs"], group["dead"]) for group in groups] == [("7", 7), ("7", 7), ("6", 6)]
    those = page.get("api/jobs", cause="exit", said=groups[2]["example"]).json
    assert those["total"] == 6
    assert page.post("api/retry", {"cause": "exit", "example": "none"}, X_Token=TOKEN).status == 404
    for action in ("retry", "drop"):
        assert page.post(f"api/{action}", {"ids": ["none"]}, X_Token=TOKEN).status == 404
        assert page.post(f"api/{action}", {"ids": []}, X_Token=TOKEN).status == 404
        assert page.post(f"api/{action}", {"ids": ["none"]}).status == 403


def test_a_job_tells_of_each_attempt_and_what_it_printed(page: Page) -> None:
    write_run(page.folder, "App", 100)
    dead = page.get("api/jobs", state="dead").json["rows"][0]["id"]
    found = page.get("api/job", id=dead).json
    assert [each["name"] for each in found["attempts"]] == ["failed", "failed", "dead"]
    assert found["job"]["job"]["group"]["Plate"] == "BR00000"
    log = page.get("api/log", id=dead, place=found["job"]["log"]).json
    assert log["text"].startswith("reading\nValueError")
    assert log["ended"]
    assert page.get("api/log", id=dead, place="other.log@0+5").status == 404
    assert page.get("api/log", id=dead, place="../../../config.py@0").status == 404
    assert page.get("api/job", id="no").status == 404


def test_a_log_is_shown_while_the_job_runs_and_no_character_is_cut(page: Page) -> None:
    store, paths = FolderStore(page.folder / "data"), RunPaths("App", RUN)
    lease = Lease(Job("a" * 16, 0, b'{"group":{}}'), "", 0)
    write_jobs(store, paths.jobs + "a", [lease.job])
    ledger = LedgerWriter(store, paths.events + "w")
    ledger.started(1.0, lease, worker="w", log="w@0")
    ledger.flush()
    text = "größe 1\n".encode()
    store.append(paths.logs + "w", text[:3])
    first = page.get("api/log", id="a" * 16, place="w@0").json
    assert (first["text"], first["next"], first["ended"]) == ("gr", 2, False)
    store.append(paths.logs + "w", text[3:])
    assert page.get("api/log", id="a" * 16, place="w@0", **{"from": 2}).json["text"] == "öße 1\n"


@pytest.fixture
def finished(page: Page) -> str:
    """A job that succeeded and wrote files that would like to run; its id."""
    store, paths = FolderStore(page.folder / "data"), RunPaths("App", RUN)
    job_id = "b" * 16
    lease = Lease(Job(job_id, 0, b'{"group":{"Plate":"P1"}}'), "", 0)
    write_jobs(store, paths.jobs + "a", [lease.job])
    for name in ("plot.svg", "page.html", "raw.bin", 'a b\u00e9\r\n;".png'):
        store.write(f"out/P1/{name}", b"<script>alert(1)</script>")
    store.write("raw/P1.png", b"\x89PNG")
    store.write("raw/P2.png", b"not this job's")
    ledger = LedgerWriter(store, paths.events + "w")
    ledger.ended("succeeded", 2.0, lease, Outcome(State.SUCCEEDED, output="out/P1", seconds=1))
    ledger.flush()
    return job_id


def test_the_files_of_a_job_are_listed_and_no_others_are_given(page: Page, finished: str) -> None:
    found = page.get("api/job", id=finished).json
    assert [file["key"] for file in found["inputs"]] == ["raw/P1.png"]
    assert len(found["outputs"]) == 4
    assert page.get("file", id=finished, key="raw/P1.png").body == b"\x89PNG"
    for key in ("raw/P2.png", "../config.py", "/etc/passwd", "out/P1/../../raw/P2.png", "", "runs", "\0"):
        assert page.get("file", id=finished, key=key).status == 404


def test_what_a_job_wrote_is_never_run(page: Page, finished: str) -> None:
    def asked(name: str) -> dict[str, str]:
        found = page.get("file", id=finished, key=f"out/P1/{name}")
        assert (found.status, found.body) == (200, b"<script>alert(1)</script>")
        assert found.headers["Content-Security-Policy"].endswith("sandbox")
        assert "script-src" not in found.headers["Content-Security-Policy"]
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        return found.headers

    assert asked("plot.svg")["Content-Type"] == "image/svg+xml"
    assert asked("page.html")["Content-Type"] == "text/plain; charset=utf-8"
    assert asked("raw.bin")["Content-Disposition"].startswith("attachment")
    odd = asked('a b\u00e9\r\n;".png')
    assert (
        odd["Content-Disposition"]
        == f"inline; filename*=UTF-8''{quote('a bé' + chr(13) + chr(10) + ';' + chr(34) + '.png')}"
    )


class Vanishing(Model):
    """A model whose one file is taken away while it is read."""

    def __init__(self) -> None:
        self.size = 3 * PIECE_BYTES

    def file(self, job_id: str, key: str) -> tuple[StoredFile, Callable[[int, int], bytes]]:
        def read(start: int, length: int) -> bytes:
            if start:
                raise KeyMissing(f"{key}: not in the store")
            return b"x" * length

        return StoredFile(key, self.size), read


class VanishingRuns(Runs):
    """Runs whose current one is such a model."""

    def __init__(self) -> None:
        self.current = Vanishing()


@pytest.fixture
def vanishing() -> Iterator[PageServer]:
    server = PageServer(VanishingRuns(), TOKEN, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_that_vanishes_while_it_is_sent_is_cut_short_and_holds_nothing_else(
    vanishing: PageServer,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", vanishing.server_address[1], timeout=20)
    connection.request("GET", f"/{TOKEN}/file?id=a&key=b.bin")
    answer = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert cut.value.partial == b"x" * PIECE_BYTES
    connection.close()


def test_a_browser_that_goes_away_is_no_news_on_the_terminal(
    vanishing: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    request = f"GET /{TOKEN}/api/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() * 50
    for _ in range(20):
        with socket.create_connection(vanishing.server_address[:2]) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets
            gone.sendall(request)
    with socket.create_connection(vanishing.server_address[:2]) as later:
        later.sendall(request)
        assert later.recv(1)  # those before have been heard
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("end", ["PNG", "jpg", "jpeg", "gif", "webp", "svg"])
def test_pictures_are_shown(end: str) -> None:
    assert how_shown(f"a/b.{end}").content_type.startswith("image/")


@pytest.mark.parametrize(
    "name", ["a.html", "a.xhtml", "a.pdf", "a.js", "a", "a.png.exe", ".svgz", "a.htm", "a.xml"]
)
def test_nothing_else_is_shown_as_what_it_says_it_is(name: str) -> None:
    assert how_shown(name).content_type in ("text/plain; charset=utf-8", "application/octet-stream")


def test_an_attempt_lost_to_a_machine_is_told_too(page: Page) -> None:
    store, paths = FolderStore(page.folder / "data"), RunPaths("App", RUN)
    lease = Lease(Job("c" * 16, 0, b"{}"), "", 0)
    write_jobs(store, paths.jobs + "a", [lease.job])
    ledger = LedgerWriter(store, paths.events + "w")
    lost = Outcome(State.WAITING, Cause.WORKER_LOST, "its worker was killed", seconds=3)
    ledger.ended("interrupted", 2.0, lease, lost, worker="w", machine="m")
    ledger.flush()
    found = page.get("api/job", id="c" * 16).json["attempts"]
    assert [(each["name"], each["cause"]) for each in found] == [("interrupted", "worker-lost")]
    assert page.get("api/overview").json["interruptions"] == 1


def test_the_report_is_given_once_the_run_has_one(page: Page) -> None:
    paths = write_run(page.folder, "App", 10)
    assert page.get("report").status == 404
    assert page.get("api/overview").json["report"] is False
    FolderStore(page.folder / "data").write(paths.root + "report.html", b"<!doctype html><p>told</p>")
    page.server.runs.current.look_again()
    assert page.get("api/overview").json["report"] is True
    found = page.get("report")
    assert found.body.endswith(b"told</p>") and "sandbox" in found.headers["Content-Security-Policy"]


def test_machines_tell_what_they_run_and_how_they_ended(tmp_path: Path) -> None:
    store, paths = FolderStore(tmp_path / "data"), write_run(tmp_path, "App", 100)
    now = 1_700_010_000.0
    job = Job("a" * 16, 100, b"{}")
    ledger = LedgerWriter(store, paths.events + "m3.jsonl")
    ledger.started(now - 10, Lease(job, "", now), worker="w3", machine="m3")
    ledger.flush()
    history = Fold(store, paths).update()
    taken = "taken back by AWS"
    rented = (
        RentedMachine(
            "m1", running=False, kind="m5.large", since=now - 900, ended=now - 300, why=taken, lost=True
        ),
        RentedMachine("m2", running=True, kind="m5.large", since=now - 60),
        RentedMachine("m3", running=True, kind="c5.large", since=now - 4000),
    )
    machines = Machines(target=2, running=2, rented=rented, cost=Cost(0.5, 0.2))
    snapshot = take(
        history, app="App", engine="aws", run=RUN, machines=machines, counts=Counts(leased=1), now=now
    )._replace(eta=1800.0)
    found = overview(snapshot, history, now)
    rows = {row["name"]: row for row in found["fleet"]["rows"]}
    assert list(rows)[:2] == ["m3", "m2"], "who works comes first, who has ended last"
    assert rows["m3"]["state"] == "runs for 1 h 6 min"
    assert [each["id"] for each in rows["m3"]["running"]] == [job.id]
    assert rows["m1"]["state"] == f"{taken} after 10 min" and rows["m1"]["lost"] is True
    assert rows["m7"]["state"] == "ended", "one that the engine has forgotten"
    assert ("cost so far", "$0.50") in found["figures"] and ("cost at the end", "$0.60") in found["figures"]


def test_nobody_is_told_of_money_where_nothing_costs_any(page: Page) -> None:
    write_run(page.folder, "App", 10)
    assert not [name for name, _ in page.get("api/overview").json["figures"] if "cost" in name]
