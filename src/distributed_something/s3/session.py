"""Makes clients of AWS, repeats failed calls, and translates AWS's errors.

Region, profile and endpoint are those of the project's config; boto3's default session is never used, as it
takes them from anywhere. Clients are botocore's: what boto3 adds is not needed, and makes a start a fifth
slower. Used by every module that calls AWS.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

from ..errors import DsError, NotSignedIn, Unreachable

CONNECT_SECONDS = 10
READ_SECONDS = 25.0
"""Read timeout in seconds: longer than a long poll of SQS, which takes 20 s."""

PATIENCE_SECONDS = 15.0
"""How long a failing call is repeated, in seconds. A user waits this long for an error."""

WHERE_ANSWERED = 3
"""Factor on the patience if AWS answers with an error: throttling may last half a minute."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_BEGAN = "ds_began"

_QUERY = re.compile(r"\?[^\s\"]*")
"""The end of an address that an error shows."""

_SIGN_IN = (
    "aws configure, or aws sso login, for the profile that AWS_PROFILE in the config names; then try again"
)
_PROFILE = (
    "aws configure makes it; or name one of `aws configure list-profiles` in AWS_PROFILE in the config;"
    " AWS_PROFILE = '' takes the credentials of the environment, or of this machine"
)
_REACH = "check the network, a proxy (HTTPS_PROXY), AWS_REGION and S3_ENDPOINT in the config; then try again"
_WRONG_KEYS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_FORBIDDEN = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure"})
NO_SUCH = "NoSuchEntity"
"""IAM's code for a role or an instance profile that is not there."""

SLOW_DOWN = frozenset(
    {"RequestThrottled", "Throttling", "ThrottlingException", "RequestLimitExceeded", "SlowDown"}
    | {"EC2ThrottledException", "ThrottledException", "TooManyRequests", "TooManyRequestsException", "429"}
)


class NoAnswer(Unreachable):
    """No answer came: there is no network, or no server."""


class QueueGone(DsError):
    """The queue does not exist: the run was cleaned up, or never set up."""


_FAILED = frozenset(
    {"InternalError", "InternalFailure", "InternalServerError", "ServerException", "ServiceUnavailable"}
    | {"ServiceUnavailableException", "Unavailable", "RequestTimeout", "RequestTimeoutException"}
    | {"500", "502", "503", "504"}
)


class AwsSession:
    """Clients of one account and region. Threads may share it, and the clients.

    `region`, `profile` and `endpoint` (a URL, for an emulator) are the config's; None: as the user's AWS
    files and environment say. `key` is an emulator's access key, and its secret key too. Nothing is imported
    or read before the first client.

    A call that gets no answer is repeated for `patience` seconds; one that AWS fails or throttles, for
    WHERE_ANSWERED times as long. After a call has spent its patience without an answer, later calls are made
    once, until one is answered: so a command of many calls ends soon without a network.
    """

    def __init__(
        self,
        region: str | None = None,
        profile: str | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.profile = profile
        self.endpoint = endpoint
        self.unsigned = False
        """Whether it asks without a signature."""
        self.pays = False
        """Whether its requests to S3 say that it pays for them."""
        self._role = ""
        self._key = key
        self._region = region
        self._session: Any = None
        self._patience = _Patience(patience)
        self._clients: dict[tuple[str, int, float, float | None, str], Any] = {}
        self._lock = threading.Lock()

    @property
    def region(self) -> str:
        """The region of the calls. Raises DsError if none is given anywhere."""
        region: str | None = self._region or self.setting("region")
        if region is None:
            raise DsError("no AWS region is given", "set AWS_REGION in the config")
        return region

    def elsewhere(self, region: str) -> AwsSession:
        """A session of the same profile in another region. It shares what this one has read."""
        other = AwsSession(region, self.profile, self.endpoint, self._key, self.patience)
        other._session, other._lock = self._botocore(), self._lock
        return other

    def as_(self, *, role: str = "", pays: bool = False, unsigned: bool = False) -> AwsSession:
        """A session that asks by another role, pays for what it asks of S3, or asks without a signature."""
        other = AwsSession(self._region, self.profile, self.endpoint, self._key, self.patience)
        other._role, other.pays, other.unsigned = role, pays, unsigned
        return other

    @property
    def patience(self) -> float:
        """How long a failing call is repeated, in seconds."""
        return self._patience.seconds

    def client(
        self,
        service: str,
        connections: int = 10,
        *,
        read_seconds: float = READ_SECONDS,
        patience: float | None = None,
        region: str | None = None,
    ) -> Any:
        """Returns the client of a service, made once, for up to `connections` threads at a time.

        A call fails after `read_seconds` without data. `patience` is how long failing calls are repeated, in
        seconds; None: the session's.
        """
        session, region = self._botocore(), region or self.region
        key = (service, connections, read_seconds, patience, region)
        with self._lock, aws_errors(f"making a client for {service}"):
            if key not in self._clients:
                client = self._clients[key] = session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=self.endpoint,
                    config=_config(connections, read_seconds, self.unsigned, of_aws=self.endpoint is None),
                )
                if self.pays and service == "s3":
                    client.meta.events.register("before-sign.s3", _pay)
                (self._patience if patience is None else _Patience(patience)).have(client)
            return self._clients[key]

    def credentials(self) -> Any:
        """botocore's credentials, which renew themselves. Raises DsError if there are none."""
        with aws_errors("looking for AWS credentials"):
            found = self._botocore().get_credentials()
        if found is None:
            raise NotSignedIn("no AWS credentials were found", _SIGN_IN)
        return found

    def setting(self, name: str) -> Any:
        """A value of botocore's configuration, such as "ca_bundle"; None where it is not set."""
        return self._botocore().get_config_variable(name)

    def _botocore(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = _new_session(self._region, self.profile, self._key)
                if self._role:
                    _take_role(self._session, self._role, self.endpoint)
            return self._session


def _new_session(region: str | None, profile: str | None, key: str | None) -> Any:
    try:
        from botocore.session import Session
    except ImportError as error:
        raise _not_installed(error) from error
    with aws_errors("starting an AWS session"):
        session = Session(profile=profile)
        if region:  # the call that assumes a role uses it too
            session.set_config_variable("region", region)
        if key:
            session.set_credentials(key, key)
        session.get_scoped_config()  # raises for a profile that does not exist
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_timestamp)
    return session


def _take_role(session: Any, role: str, endpoint: str | None) -> None:
    """Has a botocore session ask by a role, which its own credentials take, and take again."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    with aws_errors("looking for AWS credentials"):
        source = session.get_credentials()
    if source is None:
        raise NotSignedIn("no AWS credentials were found", _SIGN_IN)
    fetcher = AssumeRoleCredentialFetcher(
        partial(session.create_client, endpoint_url=endpoint),
        source,
        role,
        {"RoleSessionName": "distributed-something"},
    )
    session._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def _pay(request: Any, **_: object) -> None:
    request.headers["x-amz-request-payer"] = "requester"


def _timestamp(value: Any) -> Any:
    """Parses as botocore does, but faster: botocore's takes most of the time of a list of files."""
    from botocore.utils import parse_timestamp

    if isinstance(value, str) and value[10:11] == "T" and value.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    return parse_timestamp(value)


def _not_installed(error: ImportError) -> DsError:
    what = f"the engine 'aws' needs a library that is not installed: {error}"
    return DsError(what, "pip install 'distributed-something[aws]'")


def _config(connections: int, read_seconds: float, unsigned: bool, *, of_aws: bool) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    checksums: Any = "when_supported" if of_aws else "when_required"  # older servers refuse the newer ones
    return Config(
        signature_version=UNSIGNED if unsigned else None,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        retries={"mode": "standard", "total_max_attempts": 1},  # see _Patience
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        max_pool_connections=connections,
        tcp_keepalive=True,
        user_agent_extra="distributed-something",
    )


class _Patience:
    """Repeats failing calls for a number of seconds, in place of botocore.

    botocore counts tries, whose duration depends on its version and on the failure: eight of them take
    3 seconds if connections are refused, and 8 minutes if the server is silent.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._spent = False

    def have(self, client: Any) -> None:
        """Applies this patience to a client."""
        client.meta.events.register_first("before-call", self._begins)
        client.meta.events.register_first("needs-retry", self._pause)

    def _begins(self, context: dict[str, Any], **_: object) -> None:
        context[_BEGAN] = time.monotonic()

    def _pause(
        self,
        response: tuple[Any, Any] | None,
        caught_exception: Exception | None,
        attempts: int,
        request_dict: dict[str, Any],
        **_: object,
    ) -> float | None:
        """Seconds until the call is repeated; None: it is not."""
        self._spent = self._spent and response is None
        if self._spent or not _passes(response, caught_exception):
            return None
        longest: float = min(_FIRST_PAUSE * 2 ** (attempts - 1), _LONGEST_PAUSE)
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311
        began: float = request_dict["context"][_BEGAN]
        seconds = self.seconds if response is None else self.seconds * WHERE_ANSWERED
        if time.monotonic() + pause <= began + seconds:
            return pause
        self._spent = response is None
        return None


def _passes(response: tuple[Any, Any] | None, error: Exception | None) -> bool:
    """Whether a call may succeed when it is repeated."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    if response is None:
        return isinstance(error, HTTPClientError | NoConnection)
    http, parsed = response
    code = str(parsed.get("Error", {}).get("Code", "")).rsplit(".", 1)[-1]
    return http.status_code >= 500 or http.status_code == 429 or code in SLOW_DOWN | _FAILED


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Within: translates botocore's errors to DsErrors: what was being done, why it failed, the fix."""
    try:
        import botocore.exceptions
    except ImportError as error:
        raise _not_installed(error) from error
    import botocore.parsers

    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _refused(doing, error_code(error), error_words(error)) from error
    except botocore.exceptions.BotoCoreError as error:
        raise _failed(doing, error) from error
    except botocore.parsers.ResponseParserError as error:  # which is no BotoCoreError
        said = f"{doing}: what answered is not AWS: {str(error).splitlines()[0]}"
        raise Unreachable(said, _REACH) from error


def error_code(error: Any) -> str:
    """The code of a ClientError, without the prefix of SQS's older protocol (AWS.SimpleQueueService.…)."""
    return whole_code(error).rsplit(".", 1)[-1]


def whole_code(error: Any) -> str:
    """The code with its prefix; the HTTP status if the answer, say of a proxy, has no code."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return str(error.response.get("Error", {}).get("Code") or status)


def error_words(error: Any) -> str:
    """The message of a ClientError; may be empty."""
    return str(error.response.get("Error", {}).get("Message") or "")


def or_none(call: Callable[..., Any], *codes: str, **request: Any) -> Any:
    """Makes a call. Returns None if its error has one of these codes, such as "no such queue".

    Raises botocore's error in every other case.
    """
    import botocore.exceptions

    try:
        return call(**request)
    except botocore.exceptions.ClientError as error:
        if {error_code(error), whole_code(error)}.isdisjoint(codes):
            raise
    return None


def _refused(doing: str, code: str, message: str) -> DsError:
    said = f"{doing}: {message.strip().splitlines()[0] if message.strip() else 'refused'} ({code})"
    if code in _WRONG_KEYS:
        return NotSignedIn(said, _SIGN_IN + "; if that does not help, check this machine's clock")
    if code in _FORBIDDEN or code.startswith("AccessDenied"):
        return DsError(said, "ask the account's administrator for the right that the message names")
    if code in _FAILED:
        return Unreachable(said, "something failed on AWS's side: try again in a minute; nothing is lost")
    if code in SLOW_DOWN:
        return Unreachable(said, "AWS throttles these calls: try again in a minute; nothing is lost")
    if code in ("QueueDoesNotExist", "NonExistentQueue"):
        return QueueGone(said, "ds setup")
    return DsError(said)


def _failed(doing: str, error: Exception) -> DsError:
    from botocore import exceptions

    credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    )
    network = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.EndpointConnectionError)
    said = f"{doing}: {_QUERY.sub('', str(error).splitlines()[0])}"
    if isinstance(error, credentials):
        return NotSignedIn(said, _SIGN_IN)
    if isinstance(error, exceptions.ProfileNotFound):
        return NotSignedIn(said, _PROFILE)
    if isinstance(error, network):
        return NoAnswer(said, _REACH)
    if isinstance(error, exceptions.NoRegionError):
        return DsError(said, "set AWS_REGION in the config")
    return DsError(said)
