"""Writes jobs in the form that the workers of a family of images read. Pure.

Each child of the reference has a message of its own; the config's MESSAGE names it, or the shape of the job
file decides. A job keeps its id in every form, and our own worker reads all of them (`job.keys_of`).
`steps/submit.py` and the check of the job file call it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ...errors import UsageError
from ...job import Job, keys_of
from ..config import Config
from ..templates.paths import OutputTemplate
from ..templates.template import TRUSTED, Template
from .jobfile import JobFile

Keys = Mapping[str, Any]

_ADDRESS = re.compile(r"s3:/+([^/]+)/(.+)", re.DOTALL)
_ALONE = re.compile(r"\{(\w+)\}")
_CHOICE = "choose by MESSAGE = 'group', 'cellprofiler', 'fiji' or 'omezarr', or give a COMMAND"


class Form(NamedTuple):
    """A form of messages: `needs` are the shared keys without which its workers fail.

    `as_is`: our own worker's, the job's body. All others keep the order of keys and the spaces of the child's
    own submit: a worker may name its output folder by a group's values in their order.
    """

    name: str
    readers: str
    make: Callable[[Keys, Keys], Keys]
    needs: tuple[str, ...] = ()
    as_is: bool = False

    def message(self, job: Job) -> Job:
        """The job with the body that is sent, under the same id."""
        import msgspec

        if self.as_is:
            return job
        shared = msgspec.json.decode(job.body)
        group = shared.pop("group")
        return Job(job.id, job.index, json.dumps(self.make(shared, group)).encode())


def _group(shared: Keys, group: Keys) -> Keys:
    return {**shared, "group": group}


def _cellprofiler(shared: Keys, group: Keys) -> Keys:
    return {
        "Metadata": group.get("Metadata", group),
        **{name: shared[name] for name in _CELLPROFILER},
        "output_structure": shared.get("output_structure", ""),
    }


def _fiji(shared: Keys, group: Keys) -> Keys:
    return {"Metadata": group, **{name: shared[name] for name in _FIJI}}


def _omezarr(shared: Keys, group: Keys) -> Keys:
    return {**shared, "plate": group["plate"]}


_CELLPROFILER = ("pipeline", "output", "input", "data_file")
_FIJI = ("output_file_location", "shared_metadata")
_OURS = Form("group", "our own workers", _group, as_is=True)
FORMS = {
    each.name: each
    for each in (
        Form("group", "Distributed-Something's workers", _group),
        Form("cellprofiler", "Distributed-CellProfiler's workers", _cellprofiler, _CELLPROFILER),
        Form("fiji", "Distributed-Fiji's workers", _fiji, _FIJI),
        Form("omezarr", "Distributed-OMEZARRCreator's workers", _omezarr),
    )
}


def form_of(config: Config, file: JobFile) -> Form:
    """The form of a job file's messages. Raises UsageError if it cannot be that of the config.

    Our own worker gets the form of a job's own body, unless the config has another one.
    """
    if isinstance(config.message, Mapping):
        return _own(config.message)
    if config.message:
        return _checked(FORMS[config.message], file)
    if not config.image_starts_worker:
        return _OURS
    return _by_shape(file)


def _by_shape(file: JobFile) -> Form:
    if file.plates:
        return FORMS["omezarr"]
    for name in ("cellprofiler", "fiji"):
        if all(each in file.shared for each in FORMS[name].needs):
            return FORMS[name]
    if file.bare:
        what = f"{file.path}: its groups are texts or lists, and its shared keys are of no family"
        raise UsageError(what, _CHOICE)
    return FORMS["group"]


def _checked(form: Form, file: JobFile) -> Form:
    if missing := [name for name in form.needs if name not in file.shared]:
        what = f"MESSAGE = '{form.name}': {file.path} lacks the shared key {missing[0]}"
        raise UsageError(f"{what}, which {form.readers} read", f"add it to the file, or --set {missing[0]}=…")
    if form.name == "omezarr" and any("plate" not in group for group in file.groups()):
        what = f"MESSAGE = 'omezarr': {file.path} has a job without a plate"
        raise UsageError(what, 'write "plates": ["…", …], or groups that each have a "plate"')
    return form


class Place(NamedTuple):
    """Where a job's outputs are: a bucket, and how their keys begin."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def outputs_of(config: Config, body: Keys, job_id: str) -> Place | None:
    """Where an image's own worker puts a job's outputs; None: not known.

    OUTPUT says it. Without OUTPUT, the message does, if its family's workers go by it: Fiji's jobs share a
    folder, and the worker of `group` is anyone's. The bucket is that of the message, DESTINATION_BUCKET, or
    AWS_BUCKET. Raises UsageError if OUTPUT comes out as no key.
    """
    keys, sent = keys_of(dict(body)), keys_of(_sent(config, body))
    bucket = str(sent.get("output_bucket") or config.extra.get("DESTINATION_BUCKET") or config.aws_bucket)
    if config.output:
        found = OutputTemplate(config.output).fill({**dict.fromkeys(TRUSTED, ""), **keys, "job_id": job_id})
        elsewhere = _ADDRESS.fullmatch(found)
        bucket, found = (elsewhere[1], elsewhere[2]) if elsewhere else (bucket, found)
        return Place(bucket, found if config.output[-1] in "._-" else f"{found}/")
    if all(name in sent for name in _CELLPROFILER):
        found = _cellprofiler_prefix(sent)
    elif {"output_location", "plate"} <= sent.keys() and [*sent.get("group", ["plate"])] == ["plate"]:
        found = f"{posixpath.join(str(sent['output_location']), str(sent['plate']))}."
    else:
        return None
    return Place(bucket, found) if found and config.message not in ("group", "fiji") else None


def _sent(config: Config, body: Keys) -> dict[str, Any]:
    """The message of a job; the job's body if MESSAGE does not say its form, or has changed since."""
    shared = dict(body)
    group = shared.pop("group", {})
    named = FORMS[config.message or "group"] if isinstance(config.message, str) else _own(config.message)
    try:
        return dict(named.make(shared, group))
    except KeyError:
        return dict(body)


def _cellprofiler_prefix(keys: Keys) -> str:
    """Below `output`: `output_structure` with the values in it, or else the values with dashes.

    Empty if its worker cannot read the metadata.
    """
    metadata, structure = keys.get("Metadata"), str(keys.get("output_structure") or "")
    if isinstance(metadata, Mapping):
        pairs = [[name, str(value)] for name, value in metadata.items()] if structure else []
    else:
        pairs = [each.split("=")[:2] for each in str(metadata).split(",")]
    if not pairs or any(len(pair) < 2 for pair in pairs):
        return ""
    for name, value in pairs:
        structure = structure.replace(name, value)
    return posixpath.join(str(keys["output"]), structure or "-".join(value for _, value in pairs), "")


def template_names(shared: Keys, group: Keys) -> list[str]:
    """The names that a MESSAGE of the user's own may use."""
    return [*shared, *keys_of({"group": group}), "group"]


def _own(template: Mapping[str, str]) -> Form:
    """A form by the user's own template: `{name}` alone is the value itself, as JSON has it."""
    texts = {name: Template(text, f"MESSAGE: {name}") for name, text in template.items()}

    def make(shared: Keys, group: Keys) -> Keys:
        keys = {**shared, **keys_of({"group": group}), "group": group}
        return {name: _value(text, keys) for name, text in texts.items()}

    return Form("template", "the workers of its image", make)


def _value(template: Template, keys: Keys) -> Any:
    alone = _ALONE.fullmatch(template.text)
    return keys[alone[1]] if alone else template.fill(keys)
