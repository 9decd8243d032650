"""Opens a bucket for obstore: endpoint, credentials, timeouts, retries. Called by `store.py`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ..errors import DsError
from .session import AwsSession, aws_errors

_REQUEST_SECONDS = 300
_CREDENTIALS_SECONDS = 420

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 15.0
_GROWTH = 4
"""Base of obstore's random back-off. With its default of 2 waits hardly grow, and its 12 retries end after
some 3 seconds."""
_NO_LIMIT = 10_000


class Credentials:
    """botocore's credentials for obstore: roles, SSO and tokens are renewed by botocore.

    botocore renews what has less than 10 minutes left and obstore asks again 5 minutes before
    `expires_at`, so with 7 minutes what it uses is always valid.
    """

    def __init__(self, session: AwsSession) -> None:
        self._found = session.credentials()
        self.failure: DsError | None = None

    def __call__(self) -> Any:
        """Returns credentials that are valid for some minutes at least. Called by obstore."""
        try:
            with aws_errors("renewing the AWS credentials"):
                frozen = self._found.get_frozen_credentials()
        except DsError as error:
            self.failure = error
            raise
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_SECONDS),
        }


def open_bucket(
    name: str,
    session: AwsSession,
    *,
    region: str,
    endpoint: str,
    retry_seconds: float,
    silence_seconds: float,
    credentials: Credentials | None,
) -> Any:
    """Opens the bucket `name`, without a call.

    A request fails after `silence_seconds` without an answer, including the time to send its body. Failed
    requests are repeated for `retry_seconds`. Without `credentials` requests are not signed.
    """
    from obstore.store import S3Store

    client: Any = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=10),
        "read_timeout": timedelta(seconds=silence_seconds),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
        "user_agent": "distributed-something",
    }
    if bundle := session.setting("ca_bundle"):
        client["root_certificate"] = Path(bundle).read_bytes()
    return S3Store(
        name,
        region=region,
        endpoint=endpoint,
        client_options=client,
        retry_config=_patience(retry_seconds),
        credential_provider=credentials,
        skip_signature=credentials is None,
        request_payer=session.pays,
    )


def _patience(seconds: float) -> Any:
    """obstore's retries: for `seconds`, and at most a quarter longer."""
    longest = min(_LONGEST_WAIT_SECONDS, seconds / 4)
    return {
        "max_retries": _NO_LIMIT,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=min(_FIRST_WAIT_SECONDS, longest)),
            "max_backoff": timedelta(seconds=longest),
            "base": _GROWTH,
        },
    }
