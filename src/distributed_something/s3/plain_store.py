"""A bucket by boto3 alone, for the auto-monitor: AWS's Python lacks obstore's compiled parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..engine import StoredFile
from ..errors import DsError
from .errors import Denied
from .session import error_code
from .store import S3Store

_BATCH = 1000


class PlainStore(S3Store):
    """Implements engine.Store with one request at a time: slower, without obstore.

    `acl` is the canned ACL that it gives to what it writes; obstore cannot.
    """

    acl = ""

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        import botocore.exceptions

        wanted: dict[str, str] = {}
        if start or length is not None:
            end = "" if length is None else start + max(length, 1) - 1
            wanted["Range"] = f"bytes={start}-{end}"
        name = self._name(key)
        with self._errors(key):
            try:
                answer = self._client().get_object(Bucket=self.bucket, Key=name, **wanted)
            except botocore.exceptions.ClientError as error:
                if error_code(error) in ("InvalidRange", "416"):  # the range starts at the file's end
                    return b""
                raise
            data: bytes = answer["Body"].read()
            return data[:length]

    def _stat(self, key: str) -> StoredFile | None:
        import botocore.exceptions

        name = self._name(key)
        with self._errors(key):
            try:
                found = self._client().head_object(Bucket=self.bucket, Key=name)
                return StoredFile(key, int(found["ContentLength"]), found["ETag"].strip('"'))
            except botocore.exceptions.ClientError as error:
                if error_code(error) == "404":
                    return None
                raise

    def _tagged(self, key: str) -> tuple[bytes, str]:
        name = self._name(key)
        with self._errors(key):
            answer = self._client().get_object(Bucket=self.bucket, Key=name)
            return answer["Body"].read(), answer["ETag"]

    def _put(self, key: str, data: bytes, mode: Any) -> None:
        condition = {"IfNoneMatch": "*"} if mode == "create" else {}
        if isinstance(mode, dict):
            condition = {"IfMatch": mode["e_tag"]}
        condition |= {"ACL": self.acl} if self.acl else {}
        name = self._name(key)
        with self._errors(key):
            self._client().put_object(Bucket=self.bucket, Key=name, Body=data, **condition)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, a thousand in a request; one that is not there is no error."""
        gone = [*keys]
        names = [self._name(key) for key in gone]
        self._forget(gone)
        for start in range(0, len(names), _BATCH):
            objects = [{"Key": name} for name in names[start : start + _BATCH]]
            with self._errors(""):
                answer = self._client().delete_objects(Bucket=self.bucket, Delete={"Objects": objects})
            for refused in answer.get("Errors", ()):
                kind = Denied if refused["Code"] == "AccessDenied" else DsError
                raise kind(f"deleting s3://{self.bucket}/{refused['Key']}: {refused['Code']}")

    def fetch(self, key: str, path: Path) -> int:
        """Copy a stored file to a new local path."""
        name = self._name(key)
        with self._errors(key):
            body = self._client().get_object(Bucket=self.bucket, Key=name)["Body"]
            with path.open("xb") as file:
                for chunk in body.iter_chunks(1 << 20):
                    file.write(chunk)
                return file.tell()

    def publish(self, path: Path, key: str) -> int:
        """Copy a local file into the bucket: in parts where it is large."""
        from s3transfer.manager import TransferManager

        name = self._name(key)
        with self._errors(key), TransferManager(self._client()) as transfers:
            more = {"ACL": self.acl} if self.acl else {}
            transfers.upload(str(path), self.bucket, name, extra_args=more).result()
            return path.stat().st_size
