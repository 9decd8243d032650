"""Workers as the images of the reference's children have them, written from their protocols.

One knows the environment of its task, the queue and the bucket, and nothing of us: it takes a message by a
long poll, deletes it after success or if its outputs are there, and otherwise shows it again a minute later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

HIDDEN_SECONDS = 60

Message = dict[str, Any]


class Family(NamedTuple):
    """What a child reads of a message: its keys, exactly; its output folder; the name of the job."""

    keys: frozenset[str] | None
    folder: Callable[[Message], str]
    name: Callable[[Message], str]


def _cellprofiler_folder(message: Message) -> str:
    """The output structure with the values of the metadata; without one, the values with dashes."""
    pairs = [each.split("=") for each in _cellprofiler_text(message).split(",")]
    structure = message["output_structure"] or "-".join(name for name, _ in pairs)
    for name, value in pairs:
        structure = structure.replace(name, value)
    return f"{message['output']}/{structure}"


def _cellprofiler_text(message: Message) -> str:
    metadata = message["Metadata"]
    if isinstance(metadata, str):
        return metadata
    return ",".join(f"{name}={value}" for name, value in metadata[0].items())


_CELLPROFILER = Family(
    frozenset({"Metadata", "pipeline", "output", "input", "data_file", "output_structure"}),
    _cellprofiler_folder,
    _cellprofiler_text,
)
FAMILIES = {
    "cellprofiler": _CELLPROFILER,
    "printgroups": _CELLPROFILER,
    "fiji": Family(
        frozenset({"Metadata", "output_file_location", "shared_metadata"}),
        lambda message: "/".join([message["output_file_location"], _values(message["Metadata"])]),
        lambda message: _values(message["Metadata"]),
    ),
    "omezarr": Family(
        frozenset({"input_location", "output_location", "flags", "path_in_plate", "plate"}),
        lambda message: f"{message['output_location']}/{message['plate']}.zarr",
        lambda message: str(message["plate"]),
    ),
    "something": Family(
        frozenset({"input_location", "output_location", "group"}),
        lambda message: f"{message['output_location']}/{message['group']['Metadata']}",
        lambda message: str(message["group"]["Metadata"]),
    ),
    "collate": Family(
        None,
        lambda message: f"projects/workspace/backend/{message['batch']}/{message['group']['plate']}",
        lambda message: str(message["group"]["plate"]),
    ),
}


def _values(metadata: Mapping[str, Any]) -> str:
    return "-".join(str(value) for value in metadata.values())


class CopyCat:
    """A worker of a family in a task with this `environment`. `broken` jobs always fail."""

    def __init__(
        self, family: str, environment: Mapping[str, str], sqs: Any, s3: Any, broken: Callable[[str], bool]
    ) -> None:
        self._family = FAMILIES[family]
        self._environment = environment
        self._results = environment.get("DESTINATION_BUCKET") or environment["AWS_BUCKET"]
        self._sqs = sqs
        self._s3 = s3
        self._broken = broken
        self.worked: list[str] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def work(self) -> int:
        """Takes what is visible, until nothing is. Returns how many messages that were."""
        queue, count = self._environment["SQS_QUEUE_URL"], 0
        while messages := self._sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=0).get("Messages", ()):
            (received,) = messages
            handle, count = received["ReceiptHandle"], count + 1
            if self._job(json.loads(received["Body"])):
                self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=handle)
            else:
                self._sqs.change_message_visibility(
                    QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=HIDDEN_SECONDS
                )
        return count

    def _job(self, message: Message) -> bool:
        """A message with a key too many or too few is a failure: their workers read keys by name."""
        assert self._family.keys in (None, set(message)), message
        name, folder = self._family.name(message), self._family.folder(message)
        if self._done(folder):
            self.skipped.append(name)
            return True
        if self._broken(name):
            self.failed.append(name)
            return False
        needed = int(self._environment["EXPECTED_NUMBER_FILES"])
        for number in range(needed):
            ending = self._environment["NECESSARY_STRING"]
            self._s3.put_object(Bucket=self._results, Key=f"{folder}/{number}{ending}", Body=b"x")
        self.worked.append(name)
        return True

    def _done(self, folder: str) -> bool:
        """The reference's done check, if the task's environment asks for it."""
        theirs = self._environment
        if theirs["CHECK_IF_DONE_BOOL"].upper() != "TRUE":
            return False
        found = self._s3.list_objects_v2(Bucket=self._results, Prefix=f"{folder}/").get("Contents", ())
        large = [each for each in found if each["Size"] >= int(theirs["MIN_FILE_SIZE_BYTES"])]
        enough = [each for each in large if theirs["NECESSARY_STRING"] in each["Key"]]
        return len(enough) >= int(theirs["EXPECTED_NUMBER_FILES"])
