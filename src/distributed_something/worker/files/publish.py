"""Publishes the outputs of an attempt, and replaces what an earlier one left under the same prefix.

    claim    the manifests under the prefix are marked as being replaced: from now on they prove nothing
    publish  every file of the job
    commit   the new manifest, only if no other job has published meanwhile
    remove   what the earlier output owned and the new one does not; files that no manifest owns stay

After a failure at any step no manifest proves what is not there, and the next attempt begins anew.
Called by `worker.attempt.slot`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...engine import StoredFile
from ...errors import DsError, KeyMissing, KeyRefused
from .done import differences
from .manifest import (
    MANIFESTS,
    Manifest,
    OutputFile,
    check_not_ours,
    is_manifest,
    is_ours,
    manifest_key,
    removable,
)

LISTED = 10_000
"""Maximum keys of a prefix that are looked through for files that no manifest owns."""

OWNERS = f"{MANIFESTS}/owners"
"""Folder, under a shared output's prefix, of who published which file."""


class Store(Protocol):
    """The verbs of `engine.Store` that publishing needs."""

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yields files, in key order."""

    def read(self, key: str) -> bytes:
        """Returns a file's content."""

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Creates a file."""

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Replaces a file."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes files."""

    def locate(self, key: str) -> str:
        """Returns an address."""

    def publish_many(self, files: Iterable[tuple[Path, str]]) -> Sequence[int]:
        """Publishes files."""


class Claim(NamedTuple):
    """Who publishes: this attempt of this job of this run.

    `made_by` is the fingerprint for the manifest. `owner` owns the files of a shared output; empty: the
    job. The collecting jobs of an app's runs have one owner, so that each run replaces the one before.
    `by_files`: files without a manifest may count as done, so that there is one before the first file.
    """

    job: str
    run: str
    attempt: int
    worker: str
    made_by: Mapping[str, Any] = {}
    owner: str = ""
    by_files: bool = False

    @property
    def who(self) -> str:
        """Returns the attempt, for `Manifest.taken_by`."""
        return f"{self.job} {self.run} {self.attempt} {self.worker}"


class Taken(KeyRefused):
    """Another job has published a file of the same name into a shared output."""


class Raced(DsError):
    """Another job has published into the same output meanwhile: a later attempt may succeed."""


def publish_outputs(
    store: Store,
    prefix: str,
    folder: Path,
    claim: Claim,
    note: Callable[[str], None],
    check: Callable[[], None],
    *,
    shared: bool = False,
) -> Manifest | None:
    """Publishes every file below `folder` under `prefix`, then the manifest. None: `folder` has no file.

    `check` is called before each file, and may raise to end it all. `shared`: other jobs publish under this
    prefix too. If a second delivery of this attempt has published by the same recipe, its files stay, and its
    manifest is returned. Raises KeyRefused, before anything is published, for a file that cannot be; Taken
    for a file that another job has published; Raced.
    """
    files = sorted(_own_files(folder))
    if not files:
        return None
    check_not_ours(f"{prefix}/{name}" for name in files)
    for name in files:
        store.locate(f"{prefix}/{name}")
    before = _Before.look(store, prefix, claim, shared=shared)
    standing = before.own
    if standing is not None and _is_twin(standing, claim):
        _remove(store, prefix, standing)
        return standing
    if shared:
        _own(store, prefix, files, claim)
    before = before.claimed(store, claim)
    published = _publish(store, prefix, folder, files, check)
    check()  # whose lease is lost by now leaves the manifest to the next one
    manifest = _commit(store, prefix, claim, published, before)
    if not shared:
        _check_alone(store, prefix, before)
    _remove(store, prefix, manifest)
    if shared:  # another owner may publish under their names now
        gone = [name for name in manifest.replaces if not is_manifest(f"{prefix}/{name}", prefix)]
        store.delete([_owner_key(prefix, name) for name in gone])
    if strangers := before.strangers - {file.name for file in published} - before.names:
        note(f"{len(strangers)} file(s) below {prefix}/ that no manifest owns are left as they are")
    return manifest


def _is_twin(standing: Manifest, claim: Claim) -> bool:
    """Whether a second delivery of this attempt has published, by the same recipe."""
    same = standing.run == claim.run and standing.attempt >= claim.attempt and not standing.taken_by
    return same and not differences(standing.made_by, claim.made_by)


class _Before(NamedTuple):
    """What was under a prefix: its manifests by their keys, and the names of other files."""

    prefix: str
    manifests: Mapping[str, tuple[Manifest, bytes]]
    broken: frozenset[str]
    strangers: frozenset[str]
    own_key: str

    @classmethod
    def look(cls, store: Store, prefix: str, claim: Claim, *, shared: bool) -> _Before:
        """Looks. Of a shared output only the manifests of the job, and of its owner, count."""
        own = manifest_key(prefix, claim.job)
        keys, strangers = [own], frozenset[str]()
        if not shared:
            listed = [file.key for file in islice(store.list(f"{prefix}/"), LISTED)]
            if len(listed) == LISTED:  # the manifests may come behind
                keys = _manifests(store, prefix)
            else:
                keys = [key for key in listed if is_manifest(key, prefix)]
                strangers = frozenset(key[len(prefix) + 1 :] for key in listed if not is_ours(key, prefix))
        elif claim.owner:
            keys = list({own, *_manifests(store, prefix)})
        manifests, broken = {}, set()
        for key in keys:
            try:
                data = store.read(key)
            except KeyMissing:
                continue
            found = Manifest.from_json(data)
            if found is None:
                broken.add(key)
            elif not shared or key == own or found.owner == claim.owner:
                manifests[key] = found, data
        if own in broken:  # cut short, or not ours: it stands in the way of the new one
            store.delete([own])
        return cls(prefix, manifests, frozenset(broken), strangers, own)

    @property
    def own(self) -> Manifest | None:
        found = self.manifests.get(self.own_key)
        return found[0] if found else None

    @property
    def names(self) -> set[str]:
        """Returns the names that the manifests own."""
        return set[str]().union(*(found.names for found, _ in self.manifests.values()))

    def claimed(self, store: Store, claim: Claim) -> _Before:
        """Marks every manifest as being replaced by this attempt. Raises Raced."""
        marked = {}
        for key, (found, data) in self.manifests.items():
            taken = found._replace(taken_by=claim.who)
            if not store.replace(key, data, taken.to_json()) and _read(store, key) != taken:
                raise _raced(self.prefix, found.job, found.run)
            marked[key] = taken, taken.to_json()
        if claim.by_files and self.own_key not in marked:
            new = Manifest(claim.job, claim.run, claim.attempt, claim.worker, "", (), taken_by=claim.who)
            if not store.write_if_absent(self.own_key, new.to_json()) and _read(store, self.own_key) != new:
                raise _raced(self.prefix, claim.job, claim.run)
            marked[self.own_key] = new, new.to_json()
        return self._replace(manifests=marked)


def _commit(
    store: Store, prefix: str, claim: Claim, published: tuple[OutputFile, ...], before: _Before
) -> Manifest:
    """Writes the manifest, unless another attempt has written one meanwhile. Raises Raced."""
    finished = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    old = sorted(before.names - {file.name for file in published})
    others = sorted(key[len(prefix) + 1 :] for key in before.manifests if key != before.own_key)
    manifest = Manifest(
        claim.job, claim.run, claim.attempt, claim.worker, finished, published,
        made_by=claim.made_by, replaces=(*old, *others), owner=claim.owner,
    )  # fmt: skip
    key, data = before.own_key, manifest.to_json()
    own = before.manifests.get(key)
    written = store.replace(key, own[1], data) if own else store.write_if_absent(key, data)
    if not written:
        standing = _read(store, key)
        if standing != manifest:  # else only the answer was lost
            _distrust(store, key, claim.who, published)
            raise _raced(prefix, claim.job, standing.run if standing else "?")
    return manifest


def _distrust(store: Store, key: str, who: str, late: tuple[OutputFile, ...]) -> None:
    """Takes the proof from a manifest over whose files an attempt that came too late may have written."""
    data, ours = store.read(key), {file.name: file.sha256 for file in late}
    standing = Manifest.from_json(data)
    if standing and any(ours.get(each.name, each.sha256) != each.sha256 for each in standing.files):
        store.replace(key, data, standing._replace(taken_by=who).to_json())


def _check_alone(store: Store, prefix: str, before: _Before) -> None:
    """Raises Raced, and takes the new manifest back, if another job has published at the same time."""
    for key in _manifests(store, prefix):
        if key == before.own_key or key in before.manifests or key in before.broken:
            continue
        if (other := _read(store, key)) is not None:
            store.delete([before.own_key])
            raise _raced(prefix, other.job, other.run)


def _raced(prefix: str, job: str, run: str) -> Raced:
    return Raced(f"output {prefix}: job {job} of run {run} published there at the same time")


def _manifests(store: Store, prefix: str) -> list[str]:
    found = store.list(f"{prefix}/{MANIFESTS}/")
    return [file.key for file in found if is_manifest(file.key, prefix)]


def _read(store: Store, key: str) -> Manifest | None:
    try:
        return Manifest.from_json(store.read(key))
    except KeyMissing:
        return None


def _remove(store: Store, prefix: str, manifest: Manifest) -> None:
    """Removes what the manifest replaces: files first, then the manifests that owned them."""
    manifests = [f"{prefix}/{name}" for name in manifest.replaces if is_manifest(f"{prefix}/{name}", prefix)]
    kept = {file.name for file in manifest.files}
    files = removable(prefix, (name for name in manifest.replaces if name not in kept))
    if files:
        store.delete(files)
    if manifests:
        store.delete(manifests)


def _own(store: Store, prefix: str, names: Sequence[str], claim: Claim) -> None:
    """Writes down, once and for all, which job publishes each file of a shared output. Raises Taken."""
    mine = claim.owner or claim.job
    data = json.dumps({"owner": mine, "job": claim.job, "run": claim.run}).encode()
    for name in names:
        key = _owner_key(prefix, name)
        if store.write_if_absent(key, data):
            continue
        owner = json.loads(store.read(key))
        if owner["owner"] != mine:
            what = f"output {prefix}/{name}: it is that of job {owner['job']} of run {owner['run']}"
            fix = "give each job file names of its own, or an OUTPUT of its own"
            raise Taken(what, f"{fix}; if that job is gone for good, remove {prefix}/{OWNERS}/")


def _owner_key(prefix: str, name: str) -> str:
    return f"{prefix}/{OWNERS}/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _publish(
    store: Store, prefix: str, folder: Path, names: Sequence[str], check: Callable[[], None]
) -> tuple[OutputFile, ...]:
    def checked() -> Iterator[str]:
        for name in names:
            check()
            yield name

    digests = [_sha256(folder / name) for name in checked()]  # before: publishing may move the files away
    sizes = store.publish_many((folder / name, f"{prefix}/{name}") for name in checked())
    return tuple(map(OutputFile, names, sizes, digests))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_files(folder: Path) -> Iterator[str]:
    """Yields the names of the job's files, relative to `folder`; links become copies of what they point to.

    Raises KeyRefused for what cannot be published: nothing is left out of a job that succeeds.
    """
    if folder.is_symlink():
        raise KeyRefused(f"the job put a link in the place of {{output_dir}}: {folder.readlink()}")
    own = folder.parent.resolve()
    waiting = [folder]
    while waiting:
        where = waiting.pop()
        with os.scandir(where) as entries:
            for entry in entries:
                path = where / entry.name
                relative = path.relative_to(folder).as_posix()
                _check_name(relative)
                if path.is_symlink():
                    _copy_target(path, own, relative)
                if path.is_dir():
                    waiting.append(path)
                elif path.is_file():
                    yield relative
                else:
                    raise KeyRefused(f"output {relative!r}: neither a file nor a folder", _LEAVE)


_LEAVE = "have the command remove it from {output_dir}, or make it elsewhere"


def _check_name(relative: str) -> None:
    """Raises KeyRefused for a name that is no key, or that manifests have."""
    try:
        relative.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(relative)
        raise KeyRefused(f"output {shown!r}: its name is not UTF-8", "give the file another name") from None
    if MANIFESTS in relative.split("/"):  # further down too: it may be another job's prefix
        raise KeyRefused(f"output {relative!r}: the folder {MANIFESTS!r} is kept for manifests", _LEAVE)


def _copy_target(path: Path, own: Path, relative: str) -> None:
    """Replaces a link to something of the job's own by a copy. Raises KeyRefused for any other link."""
    target = Path(os.path.realpath(path))  # Path.resolve raises for a link to itself
    if not target.exists():
        raise KeyRefused(f"output {relative!r}: a link to {path.readlink()}, which is not there", _LEAVE)
    if not target.is_relative_to(own) or target == own:
        fix = "have the command copy the file (cp -L) instead of linking it"
        raise KeyRefused(f"output {relative!r}: a link out of the job's folders, to {path.readlink()}", fix)
    if path.is_relative_to(target):
        raise KeyRefused(f"output {relative!r}: a link to a folder that holds the link itself", _LEAVE)
    path.unlink()
    if target.is_dir():
        shutil.copytree(target, path, symlinks=True)
        for link in [each for each in path.rglob("*") if each.is_symlink()]:
            aim = os.path.realpath(target / link.relative_to(path))  # as seen from its old place
            link.unlink()
            link.symlink_to(aim)
    elif target.is_file():
        shutil.copyfile(target, path)
    else:
        raise KeyRefused(f"output {relative!r}: a link to what is neither a file nor a folder", _LEAVE)
