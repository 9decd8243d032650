"""What every store promises. One suite, every store: another one is a line in STORES."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import services
from distributed_something.errors import KeyMissing, KeyRefused
from distributed_something.local.store import FolderStore
from distributed_something.s3.session import AwsSession

STORES = ("folder", "durable folder", "moto", "seaweedfs", "ministack", "moto plainly", "seaweedfs plainly")

REFUSED = ["", "/abs", "a/../b", "..", "a//b", "./a", "a/.", "a/", "nul\0"]

STRANGE = [
    "a b/c d.tif",
    "ü/ñandú.txt",
    "日本/語",
    "e\u0301",
    'it\'s "q".txt',
    "a+b",
    "a%20b",
    "100%",
    "a&b=c?d#e",
]
STRANGE += [
    "~x",
    "[x]{y}",
    "<z>",
    "a:b@c;d,e",
    "star*",
    " lead",
    "trail ",
    "$HOME",
    "-rf",
    "a\\b",
    "...",
    "x" * 200,
]


class Place:
    """A store, and how to open it again: here, and in another process (as Python that makes `store`)."""

    def __init__(
        self, name: str, open_store: Callable[[], Any], code: str, environment: dict[str, str]
    ) -> None:
        self.name = name
        self.open = open_store
        self.store = open_store()
        self._code = code
        self._environment = {**os.environ, **environment}

    def start(self, script: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", f"{self._code}\n{script}"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def keys(self, prefix: str = "") -> list[str]:
        return [file.key for file in self.store.list(prefix)]


def folder_place(folder: Path, *, durable: bool) -> Place:
    code = (
        "from distributed_something.local.store import FolderStore, Path\n"
        f"store = FolderStore(Path({str(folder)!r}), durable={durable})"
    )
    return Place("folder", lambda: FolderStore(folder, durable=durable), code, {})


def s3_place(server: services.S3Server, *, plainly: bool) -> Place:
    from distributed_something.s3.plain_store import PlainStore
    from distributed_something.s3.store import S3Store

    kind = PlainStore if plainly else S3Store
    session = AwsSession("us-east-1", endpoint=server.endpoint)
    options = {"bucket": services.bucket(server), "prefix": secrets.token_hex(6), "retry_seconds": 10.0}
    code = (
        "from distributed_something.s3.store import AwsSession, S3Store\n"
        "from distributed_something.s3.plain_store import PlainStore\n"
        f"session = AwsSession('us-east-1', endpoint={server.endpoint!r})\n"
        f"store = {kind.__name__}(session=session, **{options!r})"
    )
    return Place(server.name, lambda: kind(session=session, **options), code, server.environment)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.Servers]:
    with services.Servers(tmp_path_factory.getbasetemp().parent) as found:
        yield found


@pytest.fixture(params=STORES)
def place(
    request: pytest.FixtureRequest,
    servers: services.Servers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    if request.param.endswith("folder"):
        return folder_place(tmp_path / "store", durable=request.param.startswith("durable"))
    name, _, plainly = request.param.partition(" ")
    server = servers.get(name)
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    return s3_place(server, plainly=bool(plainly))


@pytest.fixture
def store(place: Place) -> Any:
    return place.store


# Keys


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_leads_elsewhere_is_refused_by_every_verb(store: Any, tmp_path: Path, key: str) -> None:
    here = tmp_path / "here"
    here.write_bytes(b"mine")
    verbs: list[Callable[[], object]] = [
        lambda: store.read(key),
        lambda: store.write(key, b"x"),
        lambda: store.write_if_absent(key, b"x"),
        lambda: store.append(key, b"x"),
        lambda: store.delete([key]),
        lambda: store.fetch(key, tmp_path / "there"),
        lambda: store.publish(here, key),
        lambda: store.locate(key),
        lambda: store.fetch_many([(key, tmp_path / "there")]),
        lambda: store.publish_many([(here, key)]),
    ]
    for verb in verbs:
        with pytest.raises(KeyRefused, match="store key"):
            verb()
    assert here.read_bytes() == b"mine"
    assert not (tmp_path / "there").exists()
    assert listed(store) == []


@pytest.mark.parametrize("prefix", ["/etc/", "../", "a/../", "a//b"])
def test_a_list_does_not_lead_elsewhere_either(store: Any, prefix: str) -> None:
    with pytest.raises(KeyRefused):
        list(store.list(prefix))


def listed(store: Any) -> list[tuple[str, int]]:
    """The keys and sizes of all files."""
    return [(file.key, file.size) for file in store.list()]


def test_strange_keys_are_kept_as_they_are(place: Place, tmp_path: Path) -> None:
    strange = [key for key in STRANGE if not (place.name == "seaweedfs" and "\\" in key)]
    for number, key in enumerate(strange):
        place.store.write(key, b"%d" % number)
    assert place.keys() == sorted(strange)
    for number, key in enumerate(strange):
        assert place.store.read(key) == b"%d" % number
        assert key in place.keys(key)
        place.store.fetch(key, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == b"%d" % number
    place.store.delete(strange)
    assert place.keys() == []


# Lists


def test_an_empty_store_lists_nothing(store: Any) -> None:
    assert listed(store) == []
    assert list(store.list("a/b")) == []


def test_a_list_tells_keys_and_sizes(store: Any) -> None:
    store.write("a/b.txt", b"12345")
    store.write("c", b"")
    assert listed(store) == [("a/b.txt", 5), ("c", 0)]


def test_a_prefix_is_plain_text(place: Place) -> None:
    for key in ("plate1/x", "plate10/x", "plate2/x", "plate1.txt", "other/plate1/x"):
        place.store.write(key, b"")
    assert set(place.keys("plate1")) == {"plate1.txt", "plate1/x", "plate10/x"}
    assert place.keys("plate1/") == ["plate1/x"]
    assert place.keys("plate1/x") == ["plate1/x"]
    assert place.keys("plate1/x/") == []
    assert place.keys("late1") == []


def test_folders_are_told_without_what_lies_in_them(store: Any) -> None:
    for key in (
        "runs/App/b/x/1",
        "runs/App/b/x/2",
        "runs/App/a/1",
        "runs/App/file",
        "runs/Appendix/c/1",
        "z",
    ):
        store.write(key, b"x")
    assert list(store.folders("runs/App/")) == ["a", "b"]
    assert list(store.folders("none/")) == []


def test_a_list_is_in_the_order_of_keys(place: Place) -> None:
    names = ["a-b", "a.txt", "a/b", "a/b.c", "a/b0", "a0", "aa/z", "B", "ä", "10", "9"]
    if place.name == "seaweedfs":  # it orders by folders: S3's order where no name goes on after another
        names = [name for name in names if not name.startswith(("a-", "a."))]
    for name in names:
        place.store.write(name, b"")
    assert place.keys() == sorted(names)


@pytest.mark.fault(21, 36)
def test_a_list_has_all_pages(place: Place) -> None:
    names = [f"many/{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: place.store.write(name, b""), names))
    assert place.keys("many/") == names
    place.store.delete(names[1:])
    assert place.keys() == names[:1]


# Reading and writing


def test_what_is_written_is_read(store: Any) -> None:
    for data in (b"", b"\0\r\n\xff", b"x" * 300_000):
        store.write("deep/down/file", data)
        assert store.read("deep/down/file") == data


def test_part_of_a_file_is_read(store: Any) -> None:
    store.write("file", b"0123456789")
    assert store.read("file", 3) == b"3456789"
    assert store.read("file", 3, 4) == b"3456"
    assert store.read("file", 0, 4) == b"0123"
    assert store.read("file", 8, 100) == b"89"
    assert store.read("file", 10) == b""
    assert store.read("file", 99) == b""
    assert store.read("file", 99, 5) == b""
    assert store.read("file", 2, 0) == b""


def test_part_of_an_empty_file_is_empty(store: Any) -> None:
    store.write("file", b"")
    assert store.read("file", 0, 10) == store.read("file", 3) == b""


def test_a_file_that_is_not_there_is_missing(store: Any, tmp_path: Path) -> None:
    store.write("a/b", b"x")
    for key in ("a", "a/c", "b", "a/b/c"):
        with pytest.raises(KeyMissing, match=key):
            store.read(key)
        with pytest.raises(KeyMissing, match=key):
            store.read(key, 3, 4)
        with pytest.raises(KeyMissing, match=key):
            store.fetch(key, tmp_path / "there")
    with pytest.raises(KeyMissing):
        store.fetch_many([("a/b", tmp_path / "there"), ("a/c", tmp_path / "here")])


def test_a_write_replaces_the_whole_file(store: Any) -> None:
    store.write("file", b"long content")
    store.write("file", b"short")
    assert store.read("file") == b"short"
    assert listed(store) == [("file", 5)]


def test_a_reader_sees_the_old_or_the_new_content(place: Place) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    place.store.write("file", contents[0])
    ended = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not ended.is_set():
            seen.add(place.store.read("file"))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for number in range(20):
            place.store.write("file", contents[number % 2])
        ended.set()
    assert all(reader.result() <= set(contents) for reader in readers)


# Exclusive creation


def test_only_the_first_creates(store: Any) -> None:
    assert store.write_if_absent("file", b"one") is True
    assert store.write_if_absent("file", b"two") is False
    assert store.read("file") == b"one"
    store.delete(["file"])
    assert store.write_if_absent("file", b"three") is True


def _need_one_step(place: Place) -> None:
    """Skip where the server looks whether a file is there and makes it in two steps."""
    if place.name == "moto":
        pytest.skip("moto looks first, and writes then: two at once may both create")


def test_exactly_one_of_many_threads_creates(place: Place) -> None:
    _need_one_step(place)
    start = threading.Barrier(16)

    def race(number: int) -> bool:
        start.wait()
        return bool(place.store.write_if_absent("race", b"%d" % number))

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert won.count(True) == 1
    assert place.store.read("race") == b"%d" % won.index(True)


def test_exactly_one_of_many_processes_creates(place: Place) -> None:
    _need_one_step(place)
    script = "import sys, os\nfor n in range(10):\n    print(int(store.write_if_absent(f'race/{n}', b'x')))"
    racers = [place.start(script) for _ in range(3)]
    won = [list(map(int, racer.communicate(timeout=60)[0].split())) for racer in racers]
    assert list(map(sum, zip(*won, strict=True))) == [1] * 10
    assert len(place.keys("race/")) == 10


# Appended files


def test_many_pieces_are_read_in_the_given_order(place: Place) -> None:
    for number in range(70):
        place.store.write(f"many/{number}", b"%03d" % number)
    place.store.append("log", b"first ")
    place.store.append("log", b"second")
    pieces = [(f"many/{number}", 1, 2) for number in reversed(range(75))]
    found = [*place.store.read_many([*pieces, ("log", 3, 6), ("many/1", 5, 2)])]
    assert found[:5] == [None] * 5
    assert found[5:75] == [b"%02d" % number for number in reversed(range(70))]
    assert found[75:] == [b"st sec", b""]
    assert [*place.store.read_many([])] == []
    (few,) = place.store.read_many([("many/1", 0, 3)])
    assert few == b"001"


def test_who_stops_reading_many_is_not_kept(place: Place) -> None:
    place.store.write("a", b"x" * 1000)
    reading = place.store.read_many(("a", 0, 1000) for _ in range(100))
    assert next(reading) == b"x" * 1000
    reading.close()


def test_what_is_appended_is_there_in_order(place: Place) -> None:
    lines = [b'{"n":%d}\n' % number for number in range(60)]
    for line in lines[:40]:
        place.store.append("events/w1.jsonl", line)
    assert b"".join(map(place.store.read, place.keys("events/w1.jsonl"))) == b"".join(lines[:40])
    for line in lines[40:]:
        place.store.append("events/w1.jsonl", line)
    assert b"".join(map(place.store.read, place.keys("events/w1.jsonl"))) == b"".join(lines)


def test_an_appended_file_is_read_as_one(place: Place) -> None:
    pieces = [secrets.token_bytes(size) for size in (10, 300_000, 400_000, 1, 600_000, 5, 2_000_000, 20)]
    whole = b""
    other = place.open()
    for piece in pieces:
        place.store.append("logs/w1.log", piece)
        whole += piece
        for reader in (place.store, other):
            assert reader.read("logs/w1.log", len(whole) - 5, 5) == whole[-5:]
    for reader in (place.store, other, place.open()):
        assert reader.read("logs/w1.log") == whole
        assert reader.read("logs/w1.log", 299_000, 800_000) == whole[299_000:1_099_000]
        assert reader.read("logs/w1.log", len(whole)) == b""


def test_a_later_process_appends_after_what_is_there(place: Place) -> None:
    place.store.append("segment", b"one\n")
    place.open().append("segment", b"two\n")
    later = place.open()
    later.append("segment", b"three\n")
    later.append("segment", b"four\n")
    assert place.open().read("segment") == b"one\ntwo\nthree\nfour\n"


def test_what_was_seen_of_an_appended_file_stays(place: Place) -> None:
    """A reader that knows how far it has read misses nothing and sees nothing twice."""
    seen: dict[str, int] = {}
    found = b""
    lines = [secrets.token_bytes(60_000).hex().encode() for _ in range(12)]
    for line in lines:
        place.store.append("segment", line)
        for file in place.store.list("segment"):
            found += place.store.read(file.key, seen.get(file.key, 0))
            seen[file.key] = file.size
    assert found == b"".join(lines)


def test_threads_append_to_files_of_their_own(place: Place) -> None:
    def append(name: int) -> None:
        for number in range(10):
            place.store.append(f"log/{name}", b"%d %d\n" % (name, number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(4)))
    for name in range(4):
        assert place.store.read(f"log/{name}") == b"".join(
            b"%d %d\n" % (name, number) for number in range(10)
        )


# Deleting


def test_deleting_what_is_not_there_is_no_error(store: Any) -> None:
    store.write("there", b"")
    store.delete([])
    store.delete(["not/there", "there", "there"])
    store.delete(iter(["there"]))
    assert listed(store) == []


def test_only_what_is_named_is_deleted(place: Place) -> None:
    for key in ("a", "ab", "b/c", "b/d"):
        place.store.write(key, b"")
    place.store.delete(["a", "b/c"])
    assert place.keys() == ["ab", "b/d"]


def test_an_appended_file_that_was_deleted_begins_anew(place: Place) -> None:
    place.store.append("segment", b"old")
    place.store.delete(place.keys("segment"))
    place.store.append("segment", b"new")
    assert place.store.read("segment") == b"new"


# Files


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1, 20_000_003])
def test_a_file_goes_there_and_back(store: Any, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "out").write_bytes(content)
    assert store.publish(tmp_path / "out", "deep/down/file") == size
    assert listed(store) == [("deep/down/file", size)]
    assert store.fetch("deep/down/file", tmp_path / "in") == size
    assert (tmp_path / "in").read_bytes() == content


def test_publishing_replaces_what_is_there(store: Any, tmp_path: Path) -> None:
    for content in (b"long content", b"short"):
        (tmp_path / "out").write_bytes(content)
        store.publish(tmp_path / "out", "file")
    assert store.read("file") == b"short"


def test_fetching_does_not_replace_a_local_file(store: Any, tmp_path: Path) -> None:
    store.write("file", b"theirs")
    (tmp_path / "mine").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        store.fetch("file", tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_local_file_that_is_missing_is_told_from_a_stored_one(store: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not-here"):
        store.publish(tmp_path / "not-here", "file")
    store.write("file", b"x")
    with pytest.raises(OSError, match="no-folder"):
        store.fetch("file", tmp_path / "no-folder" / "file")


def test_a_file_is_published_whole_or_not_at_all(place: Place, tmp_path: Path) -> None:
    sizes = set()
    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            (tmp_path / "out").write_bytes(os.urandom(9 << 20))
            published = pool.submit(place.store.publish, tmp_path / "out", f"file{number}")
            while not published.done():
                sizes.update(file.size for file in place.store.list("file"))
    assert sizes <= {9 << 20}


def test_many_files_go_there_and_back(store: Any, tmp_path: Path) -> None:
    for folder in ("out", "in"):
        (tmp_path / folder).mkdir()
    sizes = [number * 1000 for number in range(60)] + [9 << 20]
    contents = {f"{number}.bin": os.urandom(size) for number, size in enumerate(sizes)}
    for name, content in contents.items():
        (tmp_path / "out" / name).write_bytes(content)
    assert list(store.publish_many((tmp_path / "out" / name, f"x/{name}") for name in contents)) == sizes
    assert list(store.fetch_many((f"x/{name}", tmp_path / "in" / name) for name in contents)) == sizes
    assert {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()} == contents
    assert list(store.fetch_many([])) == list(store.publish_many([])) == []


def test_sizes_are_those_of_files_and_of_nothing_else(store: Any) -> None:
    store.write("size/b", b"12345")
    store.write("size/empty", b"")
    store.write("size/bc/d", b"1")
    wanted = ["size/empty", "size/b", "size/none", "size/b/c", "size", "size/bc", *STRANGE]
    for number, key in enumerate(STRANGE):
        store.write(key, b"x" * number)
    found = list(store.stat(wanted))
    assert [file and file.size for file in found] == [0, 5, None, None, None, None, *range(len(STRANGE))]
    by_key = {file.key: file for file in store.list("size/")}
    assert found[:2] == [by_key["size/empty"], by_key["size/b"]], "with the same tag"
    assert list(store.stat([])) == []
    with pytest.raises(KeyRefused):
        store.stat(["size/b", "../a"])


def test_a_tag_changes_with_the_content(store: Any) -> None:
    store.write("tag/a", b"one")
    first = store.stat(["tag/a"])[0]
    store.write("tag/a", b"two")
    assert first is not None and store.stat(["tag/a"])[0] not in (first, None)


def test_a_file_is_replaced_only_if_it_has_not_changed(store: Any) -> None:
    assert not store.replace("swap/a", b"old", b"new")
    store.write("swap/a", b"old")
    assert not store.replace("swap/a", b"other", b"new")
    assert store.read("swap/a") == b"old"
    assert store.replace("swap/a", b"old", b"new")
    assert store.read("swap/a") == b"new"
    assert [file.key for file in store.list("swap/")] == ["swap/a"], "and leaves nothing beside"


def test_one_of_many_replaces_a_file(place: Place, kind: Any = None) -> None:
    store = place.store
    store.write("race/a", b"old")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.replace("race/a", b"old", b"%d" % number), range(8)))
    assert won.count(True) == 1
    assert store.read("race/a") == b"%d" % won.index(True)


def test_an_address_is_one_that_a_person_can_open(place: Place) -> None:
    address = place.store.locate("a b/c.txt")
    assert address.startswith("/" if place.name == "folder" else "s3://ds-tests/")
    assert address.endswith("/a b/c.txt")


# A folder's own


@pytest.fixture
def folder(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_a_folder_with_the_name_of_a_file_is_not_one(folder: FolderStore, tmp_path: Path) -> None:
    folder.write("plate/x", b"")
    with pytest.raises(KeyMissing):
        folder.fetch("plate", tmp_path / "there")
    assert [file.key for file in folder.list("plate")] == ["plate/x"]


def test_links_are_followed_but_not_in_circles(folder: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big.tif").write_bytes(b"123")
    folder.write("own/file", b"")
    (folder.root / "linked").symlink_to(tmp_path / "elsewhere")
    (folder.root / "own" / "loop").symlink_to(folder.root)
    (folder.root / "own" / "self").symlink_to("self")
    (folder.root / "dangling").symlink_to("nowhere")
    assert listed(folder) == [("linked/big.tif", 3), ("own/file", 0)]


def test_links_that_lead_to_each_other_end(folder: FolderStore) -> None:
    folder.write("a/x", b"")
    folder.write("b/y", b"")
    (folder.root / "a" / "to_b").symlink_to(folder.root / "b")
    (folder.root / "b" / "to_a").symlink_to(folder.root / "a")
    keys = [file.key for file in folder.list()]
    assert {"a/x", "b/y", "a/to_b/y", "b/to_a/x"} <= set(keys)
    assert len(keys) < 10


def test_temporary_files_of_a_killed_writer_are_not_listed(folder: FolderStore) -> None:
    folder.write("file", b"")
    (folder.root / ".ds-tmp-0123").write_bytes(b"part")
    assert [file.key for file in folder.list()] == ["file"]
