"""Translates errors of obstore and botocore about a bucket to DsErrors with a fix. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import DsError, KeyMissing, Unreachable
from .session import aws_errors, error_code


class Place(NamedTuple):
    """The object of a request: a key below a prefix of a bucket, and the bucket's region."""

    bucket: str
    prefix: str
    key: str
    region: str

    @property
    def address(self) -> str:
        """The address to show."""
        return f"s3://{self.bucket}/{self.prefix}{self.key}"


class Denied(DsError):
    """A right is missing."""


class Exists(Exception):
    """The file is there already."""


class Conflict(Exception):
    """Another conditional write of the same key is under way."""


_RACES = {"PreconditionFailed": Exists, "ConditionalRequestConflict": Conflict}
_CODE = re.compile(r"(?:<Code>|\(code: )([A-Za-z]+)")
_STATUS = re.compile(r"status code: ([45]\d\d)")
_SERVER_FAILED = re.compile(r"5\d\d")
_NAMED = {
    "403": "AccessDenied",
    "408": "RequestTimeout",
    "429": "TooManyRequests",
    "503": "ServiceUnavailable",
}
"""S3's codes for a status without text, as of a proxy."""

_KEYS = "sign in again (aws sso login), or renew the keys: aws sts get-caller-identity tells whose are in use"
_RIGHTS = (
    "let the user or role in use (aws sts get-caller-identity) do s3:ListBucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject and s3:AbortMultipartUpload on bucket {bucket}"
)
_REGION = "set AWS_REGION to the bucket's: aws s3api get-bucket-location --bucket {bucket}"
_LATER = "try again later; fewer machines at a time ask less of S3"
_elsewhere = ("the bucket is not in region {region}", _REGION)
_busy = ("S3 is overloaded, also on retries", _LATER)
_network = (
    "no connection to S3",
    "look at the network, HTTPS_PROXY, AWS_REGION and S3_ENDPOINT; then try again",
)
_expired = ("the credentials have expired", _KEYS)
_wrong_keys = ("the credentials are not valid", _KEYS)
_EXPLAINED = {
    "NoSuchBucket": (
        "there is no such bucket",
        "name yours (AWS_BUCKET, STORE), or: aws s3 mb s3://{bucket}",
    ),
    "AccessDenied": ("access denied", _RIGHTS),
    "AllAccessDisabled": ("access denied", _RIGHTS),
    "AuthorizationHeaderMalformed": _elsewhere,
    "IllegalLocationConstraintException": _elsewhere,
    "PermanentRedirect": _elsewhere,
    "ExpiredToken": _expired,
    "TokenRefreshRequired": _expired,
    "InvalidAccessKeyId": _wrong_keys,
    "InvalidToken": _wrong_keys,
    "SignatureDoesNotMatch": _wrong_keys,
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set the clock"),
    "ServiceUnavailable": _busy,
    "SlowDown": _busy,
    "TooManyRequests": _busy,
    "InternalError": ("S3 failed, and failed again on retries", "try again later"),
    "RequestTimeout": _network,
    "Network": _network,
    "InvalidObjectState": (
        "archived (GLACIER or DEEP_ARCHIVE): it cannot be read",
        "restore it (aws s3api restore-object), wait until it is there, or name a copy",
    ),
    "KeyTooLongError": ("the key is longer than 1,024 bytes", "give the files shorter names"),
}

_DENIED = frozenset({"AccessDenied", "AllAccessDisabled"})
_PASSING = frozenset(
    {"InternalError", "Network", "RequestTimeout", "ServiceUnavailable", "SlowDown", "TooManyRequests"}
)


def translated(error: Exception, place: Place) -> Exception | None:
    """Our error for one of S3's; None: an error of this machine (a full disk)."""
    from botocore.exceptions import ClientError

    code = code_of(error)
    if isinstance(error, ClientError):
        if code in _RACES:
            return _RACES[code]()
        return _missing(place) if code == "NoSuchKey" else _explained(error, place)
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    if isinstance(error, AlreadyExistsError) and code in _RACES:
        return _RACES[code]()
    if isinstance(error, FileNotFoundError) and error.errno is None and code != "NoSuchBucket":
        return _missing(place)
    if isinstance(error, PreconditionError):
        return DsError(f"{place.address}: it was replaced while it was read", "try again")
    return _explained(error, place) if isinstance(error, BaseError) or code == "NoSuchBucket" else None


def _missing(place: Place) -> KeyMissing:
    return KeyMissing(f"{place.key}: not in s3://{place.bucket}/{place.prefix}")


def _explained(error: Exception, place: Place) -> DsError:
    code = code_of(error)
    what, fix = _EXPLAINED.get(code, (_first_line(error), ""))
    facts = {"bucket": place.bucket, "region": place.region}
    kind = Unreachable if code in _PASSING else Denied if code in _DENIED else DsError
    return kind(f"{place.address}: {what.format_map(facts) if fix else what}", fix.format_map(facts))


def code_of(error: Exception) -> str:
    """S3's code for an error, or one of ours; empty: it has none."""
    if hasattr(error, "response"):
        return _named(error_code(error))
    text = str(error)
    if found := _CODE.search(text):
        return found[1]
    if "416 Range Not Satisfiable" in text:
        return "InvalidRange"
    if "Received redirect without LOCATION" in text:
        return "PermanentRedirect"
    if found := _STATUS.search(text):
        return _named(found[1])
    return "Network" if "HTTP error" in text or "error sending request" in text else ""


def _named(code: str) -> str:
    """S3's code for a bare status of botocore or obstore."""
    return _NAMED.get(code, "InternalError" if _SERVER_FAILED.fullmatch(code) else code)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def errors_of_botocore(doing: str) -> Iterator[None]:
    """Within: translates botocore's own errors (network, credentials), not S3's answers."""
    import botocore.exceptions

    try:
        yield
    except botocore.exceptions.BotoCoreError:
        with aws_errors(doing):
            raise
