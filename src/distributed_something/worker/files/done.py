"""Decides whether a job's outputs are there already, made by the same recipe from the same inputs.

`look` reads the store; `differences` and `fingerprint` are pure. Slots call it before an attempt, and
`ds check JOBFILE` before a run. It changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...engine import StoredFile
from ...errors import KeyMissing, KeyRefused
from ...inputs.checks.present import Listing, Lookup
from ...inputs.config import Config
from ...inputs.files import ProjectFile
from ...inputs.handler import source_of
from ...inputs.needs import KEYS as NEEDS
from .manifest import Manifest, is_manifest, is_ours, manifest_key

KEYS_APART = 100
"""Maximum keys of a job that are recorded one by one; of more, only whether any changed."""

INPUTS_APART = 1000
"""Maximum inputs that are recorded one by one; of more, only whether any changed."""

SHOWN = 3
"""Maximum differences that are named."""


class DoneRule(NamedTuple):
    """The reference's rule: enough files, large enough, with a string in their key."""

    files: int
    min_bytes: int
    containing: str


class Recipe(NamedTuple):
    """What makes the outputs of every job of a run, as digests; empty: not known or not used."""

    command: str = ""
    handler: str = ""
    image: str = ""
    environment: str = ""
    setup: str = ""
    """Of SETUP and ENVIRONMENT_FILE."""
    files: Mapping[str, str] = {}
    shared: Mapping[str, str] = {}
    """Shared inputs by name: size and tag."""


class Done(NamedTuple):
    """Whether to skip a job, and why; or why it runs again (empty: it has no outputs yet).

    `kind` is the reason without the names of files, so that jobs can be counted by it.
    """

    skip: bool
    why: str = ""
    kind: str = ""


class Reading(Listing, Protocol):
    """What the check for outputs reads of a store."""

    def read(self, key: str) -> bytes:
        """Returns a file's content. Raises KeyMissing."""


class Rules(NamedTuple):
    """How the config says what is done. `by_files`: by the reference's rule alone (DONE_BY = 'files').

    `shared`: other jobs publish under the same prefix (SHARED_OUTPUT). `lists`: many files of a folder are
    looked for by a list of it, a request for 1,000 files.
    """

    recipe: Recipe = Recipe()
    rule: DoneRule | None = None
    by_files: bool = False
    shared: bool = False
    lists: bool = False


_WORDS = {
    "command": "COMMAND",
    "handler": "HANDLER",
    "environment": "ENVIRONMENT",
    "setup": "SETUP or ENVIRONMENT_FILE",
}

UNKNOWN = "?"
"""Stands for a digest that cannot be known here: it differs from none."""


def recipe_of(
    config: Config,
    project: Path,
    image: str = "",
    files: Mapping[str, ProjectFile] = {},
    environment: str | None = None,
    shared: Mapping[str, StoredFile] = {},
) -> Recipe:
    """Returns the recipe of a config; `image` is the image's digest, where it is known.

    Of a HANDLER the source of its own module counts, and each of the project's `files`. `environment` is its
    digest; None: that of the config. `shared` are the shared inputs.
    """
    source = source_of(config.handler, project) if config.handler else None
    travels = source is not None and source.relative_to(project).as_posix() in files
    return Recipe(
        command=_digest(config.command) if config.command else "",
        handler=_digest(config.handler, b"" if travels or not source else source.read_bytes())
        if config.handler
        else "",
        image=image,
        environment=environment_digest(config) if environment is None else environment,
        setup=config.shell(project).digest(),
        files={name: f"{file.sha256[:16]}{'x' if file.executable else ''}" for name, file in files.items()},
        shared=_apart({name: f"{each.size}-{each.tag}" for name, each in shared.items()}, INPUTS_APART),
    )


def environment_digest(config: Config) -> str:
    """Returns the digest of the config's environment of a command; empty: it has none."""
    environment = config.worker_environment()
    return _digest(json.dumps(environment, sort_keys=True)) if environment else ""


def rules_of(config: Config, recipe: Recipe) -> Rules:
    """Returns what the config says about done."""
    rule = None
    if "EXPECTED_NUMBER_FILES" in config.given:
        rule = DoneRule(config.expected_number_files, config.min_file_size_bytes, config.necessary_string)
    return Rules(recipe, rule, config.done_by == "files", config.shared_output, config.in_bucket)


def fingerprint(recipe: Recipe, keys: Mapping[str, Any], inputs: Sequence[StoredFile]) -> dict[str, Any]:
    """Returns what a manifest records of what made an output: only digests, sizes and tags.

    What a job needs (`_memory`, say) makes no other output.
    """
    own = ((name, value) for name, value in keys.items() if name not in NEEDS)
    values = {name: _json_digest(value) for name, value in own}
    files = {file.key: f"{file.size}-{file.tag}" for file in inputs}
    return {
        **{name: value for name, value in recipe._asdict().items() if value},
        "job": _apart(values, KEYS_APART),
        "inputs": _apart(files, INPUTS_APART),
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what changed between two fingerprints, in words; nothing: the same output would come out."""
    found = []
    for name, word in _WORDS.items():
        if before.get(name, "") != now.get(name, "") and UNKNOWN not in (before.get(name), now.get(name)):
            found.append(f"{word} changed")
    images = before.get("image"), now.get("image")
    if all(images) and images[0] != images[1]:
        found.append("the image changed")
    found += _changes("", before.get("job"), now.get("job"))
    found += _changes("file ", before.get("files"), now.get("files"))
    found += _changes("shared input ", before.get("shared"), now.get("shared"))
    found += _changes("input ", before.get("inputs"), now.get("inputs"))
    return found


def look(
    store: Reading,
    prefix: str,
    job_id: str,
    rules: Rules,
    made_by: Callable[[], Mapping[str, Any]],
) -> Done:
    """Looks whether a job's outputs are there already.

    `made_by` returns the fingerprint that they would have now; it is called only if a manifest has one. A
    manifest counts only while its files are there with their sizes.
    """
    if rules.by_files or not rules.shared:
        files = {file.key: file.size for file in store.list(prefix + "/")}
        keys = [key for key in files if is_manifest(key, prefix)]
    else:
        files, keys = {}, [manifest_key(prefix, job_id)]
    own = manifest_key(prefix, job_id)
    manifests = _read(store, sorted(keys, key=lambda key: key != own))
    if rules.by_files or (not manifests and rules.rule and not (own in keys and own in files)):
        return _by_files(store, prefix, files, rules)
    if rules.shared:
        files = _sizes(store, prefix, manifests, lists=rules.lists)
    verdicts = [_judge(manifest, prefix, job_id, files, made_by) for manifest in manifests]
    skipped = [verdict for verdict in verdicts if verdict.skip]
    return (skipped or verdicts or [Done(False)])[0]


def _judge(
    manifest: Manifest,
    prefix: str,
    job_id: str,
    files: Mapping[str, int],
    made_by: Callable[[], Mapping[str, Any]],
) -> Done:
    if manifest.taken_by:
        return _again("an attempt to replace the outputs did not end")
    for file in manifest.files:
        if files.get(f"{prefix}/{file.name}") != file.size:
            return _again(
                f"output {file.name} is missing or has changed", "an output is missing or has changed"
            )
    if not manifest.made_by:
        if manifest.job == job_id:
            return Done(True, f"by a manifest of version {manifest.version}, which does not say what made it")
        return _again(f"the outputs are those of job {manifest.job}", "the outputs are another job's")
    try:
        changed = differences(manifest.made_by, made_by())
    except (KeyMissing, KeyRefused) as error:
        changed = [f"input {error.what}"]
    return _again(_in_words(changed), _kind(changed[0])) if changed else Done(True)


def _again(why: str, kind: str = "") -> Done:
    return Done(False, why, kind or why)


def _kind(change: str) -> str:
    """Returns a difference without the name of a file."""
    return re.sub(r"(?s)(input|file) .*?( (?:changed|is new|is gone)|: [^:]*)", r"\1\2", change)


def _by_files(store: Reading, prefix: str, files: Mapping[str, int], rules: Rules) -> Done:
    rule = rules.rule or DoneRule(1, 1, "")
    if not files:
        files = {file.key: file.size for file in store.list(prefix + "/")}
    matching = sum(
        size >= rule.min_bytes and rule.containing in key[len(prefix) :] and not is_ours(key, prefix)
        for key, size in files.items()
    )
    return Done(True, f"by {matching} files") if matching >= rule.files else Done(False)


def _read(store: Reading, keys: Iterable[str]) -> list[Manifest]:
    found = []
    for key in keys:
        try:
            manifest = Manifest.from_json(store.read(key))
        except KeyMissing:
            continue
        if manifest is not None:
            found.append(manifest)
    return found


def _sizes(store: Reading, prefix: str, manifests: Sequence[Manifest], *, lists: bool) -> dict[str, int]:
    """Returns the sizes of a manifest's own files: a shared prefix may hold those of a million jobs."""
    keys = [f"{prefix}/{file.name}" for manifest in manifests for file in manifest.files]
    try:
        return {file.key: file.size for file in look_for(store, keys, lists=lists) if file is not None}
    except KeyRefused:  # a manifest that somebody else wrote, with a name that is none
        return {}


def look_for(store: Reading, keys: Sequence[str], *, lists: bool) -> Sequence[StoredFile | None]:
    """Returns each file with its size and tag; None: there is none. `lists`: see Rules."""
    if not lists:
        return store.stat(keys)
    found = Lookup(store, lists=True).of(keys)
    return [next(iter(found[key]), None) for key in keys]


def _digest(*texts: str | bytes) -> str:
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        found.update(b"%d:" % len(data) + data)
    return found.hexdigest()[:16]


PIECE = 1 << 20
"""Characters of a long text that are encoded at once."""


def _json_digest(value: Any) -> str:
    """Returns the digest of a value as JSON; of a long text only one copy is made."""
    texts = value.values() if isinstance(value, dict) else [value]
    if not any(type(text) is str and len(text) > PIECE for text in texts):
        return _digest(json.dumps(value, sort_keys=True))
    pieces = json.JSONEncoder(sort_keys=True).iterencode  # ASCII only
    found = hashlib.sha256(b"%d:" % sum(map(len, pieces(value))))
    for piece in pieces(value):
        for start in range(0, len(piece), PIECE):
            found.update(piece[start : start + PIECE].encode())
    return found.hexdigest()[:16]


def _apart(values: Mapping[str, str], limit: int) -> dict[str, str]:
    if len(values) <= limit:
        return dict(sorted(values.items()))
    return {"*": _digest(*(f"{name}={value}" for name, value in sorted(values.items())))}


def _changes(what: str, before: object, now: object) -> list[str]:
    """Returns what differs between two tables, name by name."""
    old, new = (table if isinstance(table, dict) else {} for table in (before, now))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if "*" in names:  # too many to be recorded one by one
        return [f"{what}list changed" if what else "the job changed"]
    return [f"{what}{name} {_change(name in old, name in new)}" for name in names]


def _change(was: bool, is_now: bool) -> str:
    return "changed" if was and is_now else "is new" if is_now else "is gone"


def _in_words(changed: Sequence[str]) -> str:
    more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return ", ".join([*changed[:SHOWN], *more])
