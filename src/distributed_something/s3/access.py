"""Opens the buckets of a config: the store's own, and others that jobs name.

For another bucket the config says who asks (BUCKET_ROLES), who pays (REQUESTER_PAYS) and what others may do
with what is written (OUTPUT_ACL). A bucket that anyone may read is read without a signature if that is the
only way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from ..engine import Store
from ..errors import NotSignedIn
from ..inputs.config import Config
from .buckets import Stores
from .errors import Denied
from .plain_store import PlainStore
from .session import AwsSession, aws_errors
from .store import S3Store

_Kind = TypeVar("_Kind", bound=S3Store)
ANYONE = "anyone, without a signature,"


class Access:
    """Opens buckets as a config says. Nothing is imported or asked before the first verb of a store.

    `kind` is the class of the stores; `retry_seconds` limits the repetition of failed requests (None: the
    patience of the session). `say` gets a line for each bucket that is read without a signature.
    """

    def __init__(
        self,
        config: Config,
        session: AwsSession | None = None,
        *,
        kind: type[S3Store] = S3Store,
        retry_seconds: float | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        endpoint = config.s3_endpoint.rstrip("/") or None
        self._config = config
        self._session = session or AwsSession(config.aws_region, config.aws_profile or None, endpoint)
        self._kind = kind
        self._retry_seconds = retry_seconds
        self._say = say
        self._sessions: dict[str, AwsSession] = {}
        self._unsigned: set[str] = set()

    def home(self) -> S3Store:
        """Returns the store's own bucket, or what is below its prefix."""
        bucket, prefix = self._config.home
        session = self.session_for(bucket)
        return self._kind(bucket, session=session, prefix=prefix, retry_seconds=self._retry_seconds)

    def joined(self, home: Store | None = None) -> Stores:
        """Returns the project's store (None: its bucket), with other buckets beside it."""
        return Stores(home or self.home(), self)

    def __call__(self, bucket: str, key: str | None) -> S3Store:
        """Opens a bucket, in any region, to read `key` first; None: to write."""
        signed, acl = self.session_for(bucket), self._config.output_acl
        if key is not None:
            return self._reader(bucket, key, signed)
        if not acl or bucket == self._config.home[0]:
            return self._anywhere(self._kind, bucket, signed)
        store = self._anywhere(PlainStore, bucket, signed)
        store.acl = acl
        return store

    def without_acl(self, bucket: str) -> S3Store:
        """Opens a bucket to write, without OUTPUT_ACL."""
        return self._anywhere(self._kind, bucket, self.session_for(bucket))

    def who(self, bucket: str) -> str:
        """Returns who asks a bucket, in words; empty: whose credentials there are."""
        role = self._config.bucket_roles.get(bucket)
        return ANYONE if bucket in self._unsigned else f"the role {role}" if role else ""

    def _reader(self, bucket: str, key: str, signed: AwsSession) -> S3Store:
        """Opens a bucket with a signature, unless `key` may be read only without it."""
        if signed is not self._session:  # it has a role, or pays
            return self._anywhere(self._kind, bucket, signed)
        if (store := self._reading(bucket, key, signed)) is not None:
            return store
        store = self._reading(bucket, key, self._session.as_(unsigned=True))
        if store is None:
            return self._anywhere(self._kind, bucket, signed)
        self._unsigned.add(bucket)
        self._say(f"s3://{bucket} is read without a signature: only so it may be read here")
        return store

    def _reading(self, bucket: str, key: str, session: AwsSession) -> S3Store | None:
        """Opens a bucket; None: `key` may not be read."""
        try:
            store = self._anywhere(self._kind, bucket, session)
            with suppress(Denied):
                next(store.list(key), None)
                return store
            if key and not key.endswith("/"):
                store.stat([key])
                return store
        except (Denied, NotSignedIn):
            pass
        return None

    def session_for(self, bucket: str) -> AwsSession:
        """Returns the session for a bucket. Raises DsError if its role is refused."""
        role, pays = self._config.bucket_roles.get(bucket, ""), bucket in self._config.requester_pays
        if not role and not pays:
            return self._session
        if bucket not in self._sessions:
            session = self._session.as_(role=role, pays=pays)
            if role:
                with aws_errors(f"BUCKET_ROLES: taking the role {role} for s3://{bucket}"):
                    session.credentials().get_frozen_credentials()
            self._sessions[bucket] = session
        return self._sessions[bucket]

    def _anywhere(self, kind: type[_Kind], bucket: str, session: AwsSession) -> _Kind:
        store = kind(bucket, session=session, retry_seconds=self._retry_seconds)
        return store if session.endpoint else store.in_its_region()
