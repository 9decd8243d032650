"""Tries which rights there are on the buckets of a config, and how their server behaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ..engine import StoredFile
from ..errors import DsError
from ..inputs.checks.findings import Finding, Severity
from ..inputs.config import Config
from .access import Access
from .errors import Denied
from .store import S3Store

_RIGHTS = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "acl": "s3:PutObjectAcl",
    "remove": "s3:DeleteObject",
}
Tried = Mapping[str, bool]
"""Which verbs, as _RIGHTS names them, were tried, and allowed."""


class Spot(NamedTuple):
    """Where a config reads, or `writes`: a bucket, and what all keys there begin with, as far as is known."""

    bucket: str
    lead: str
    writes: bool
    home: bool = False

    @property
    def address(self) -> str:
        """The address to show."""
        return f"s3://{self.bucket}/{self.lead}"


def spots_of(config: Config) -> list[Spot]:
    """Returns where a config reads and writes in buckets, its own store's first."""
    found = [Spot(*config.home, writes=True, home=True)] if config.in_bucket and config.home[0] else []
    named = [(text, False) for text in (*config.inputs, *config.shared_inputs)] + [(config.output, True)]
    for text, writes in named:
        bucket, _, key = text.removeprefix("s3://").partition(" -> ")[0].partition("/")
        if text.startswith("s3://") and "{" not in bucket:
            found.append(Spot(bucket, key.partition("{")[0], writes))
    return list(dict.fromkeys(found))


def rights_findings(config: Config, access: Access, who: str = "you") -> Iterator[Finding]:
    """Yields what `who` may do in each bucket that the config names, by trying it, and what not."""
    for spot in spots_of(config):
        try:
            acl = config.output_acl
            tried = _write(access, spot, config.app_name, acl) if spot.writes else _read(access, spot)
        except DsError as failed:
            yield Finding(Severity.ERROR, failed.what, failed.fix)
        else:
            yield _finding(config, spot, tried, access.who(spot.bucket) or who)


def refuse_unconditional(store: S3Store, folder: str) -> None:
    """Raises DsError if the server lets two workers both create or replace one file."""
    if ignored := store.ignored_condition(_probe(folder)):
        what = f"s3://{store.bucket}: its server ignores {ignored}: two workers could publish one job"
        raise DsError(what, "take a version of the server that honours it, another one, or a folder as STORE")


def _probe(folder: str) -> str:
    return f"{folder}.ds-probe-{os.urandom(6).hex()}"


def _may(call: Callable[[], object]) -> bool:
    try:
        call()
    except Denied:
        return False
    return True


def _read(access: Access, spot: Spot) -> Tried:
    """Lists, and reads a byte of the first file."""
    store, found = access(spot.bucket, spot.lead), list[StoredFile]()
    tried = {"list": _may(lambda: found.extend(islice(store.list(spot.lead), 1)))}
    if found:
        tried["read"] = _may(lambda: store.read(found[0].key, 0, 1))
    return tried


def _write(access: Access, spot: Spot, app: str, acl: str) -> Tried:
    """Writes a file as workers do, reads and removes it."""
    folder = f"runs/{app}/" if spot.home else "".join(spot.lead.rpartition("/")[:2])
    store, probe = access.home() if spot.home else access(spot.bucket, None), _probe(folder)
    tried = {"list": _may(lambda: list(islice(store.list(folder), 1)))}
    tried["write"] = _may(lambda: store.write(probe, b"1"))
    if acl and not spot.home and not tried["write"]:
        plain = access.without_acl(spot.bucket)
        if _may(lambda: plain.write(probe, b"1")):
            tried |= {"write": True, "acl": False}
    if tried["write"]:
        tried["read"] = _may(lambda: store.read(probe))
        tried["remove"] = _may(lambda: store.delete([probe]))
    if all(tried.values()):
        refuse_unconditional(store, folder)
    return tried


def _finding(config: Config, spot: Spot, tried: Tried, who: str) -> Finding:
    """Says what was tried: an error if jobs would fail."""
    facts = (("bucket", spot.bucket), ("as", who), *tried.items())
    allowed, denied = ([name for name in tried if tried[name] is may] for may in (True, False))
    if not denied:
        nothing = "" if len(tried) > 1 else "; nothing lies there, so reading was not tried"
        return Finding(Severity.OK, f"{spot.address}: {who} may {_joined(allowed)}{nothing}", facts=facts)
    rights = _joined([_RIGHTS[name] for name in denied])
    what = f"{spot.address}: {who} may not {_joined(denied)}, by {rights}"
    if "acl" in denied:
        what = (
            f"{spot.address}: {who} may write, but not with OUTPUT_ACL = {config.output_acl!r}, by {rights}"
        )
    if tried.get("remove") is False:
        what += "; what was tried lies there: a file .ds-probe-…"
    where = spot.bucket if denied == ["list"] else f"{spot.bucket}/{spot.lead}*"
    fix = f"have its owner allow {who} {rights} on arn:aws:s3:::{where}, or name a role in BUCKET_ROLES"
    if not spot.writes and denied == ["list"]:  # files are found by their keys
        return Finding(Severity.WARNING, f"{what}: files can be read, folders not", fix, facts=facts)
    return Finding(Severity.ERROR, what, fix, facts=facts)


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
