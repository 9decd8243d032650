"""Makes log and ledger of a worker process whose store is a bucket or a shared folder."""

from __future__ import annotations

from functools import partial

from ..clock import SystemClock
from ..engine import Store
from ..ledger import LedgerWriter, RunPaths
from ..runs.following import Followed
from ..runs.joblog import live_key
from ..worker.gather import Gathered, GatheredLog, KeptLedger, LogKeeper


def gathering(store: Store, paths: RunPaths, name: str) -> tuple[GatheredLog, LedgerWriter]:
    """Returns log and ledger of a worker of one slot, for a store where each append costs time."""
    log = GatheredLog(store, paths.logs, f"{name}-live.log", Gathered(store, paths.logs, f"{name}.log"))
    followed = Followed(store, paths, SystemClock())
    keeper = LogKeeper([log], followed, partial(store.write, live_key(paths, name)))
    keeper.__enter__()
    return log, KeptLedger(store, f"{paths.events}{name}.jsonl", keeper)
