"""Finds the GPUs of this machine, and divides GPUs and processors among its slots. Called by workers."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..errors import SickMachine, UsageError
from ..words import many

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""Variables that limit how many threads a library starts. Without them each takes all processors."""

VISIBLE = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}
"""Variables that say which GPUs a program sees."""

_TOOLS = {
    "nvidia": (["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], r"^(\S+)$"),
    "amd": (["rocm-smi", "--showid", "--csv"], r"^card([0-9]+),"),
}
_SECONDS = 20.0
_PAUSE = 0.05


class Gpus(NamedTuple):
    """The GPUs that this process may use: the maker, and an id of each."""

    maker: str = ""
    ids: tuple[str, ...] = ()


@cache
def find_gpus() -> Gpus:
    """Returns the GPUs that this process may use: those that its environment names, or all of them."""
    for maker, variable in VISIBLE.items():
        if (given := os.environ.get(variable)) is not None:
            return Gpus(maker, tuple(each.strip() for each in given.split(",") if each.strip()))
    for maker, (command, shape) in _TOOLS.items():
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):  # no such program, or no such GPU
            continue
        if found := re.findall(shape, said.stdout, re.MULTILINE):
            return Gpus(maker, tuple(found))
    return Gpus()


def slots_with_gpus(slots: int, wanted: int, gpus: int, *, shared: bool) -> int:
    """Returns how many of the slots have `wanted` GPUs each; 0: not one has."""
    if not wanted or (shared and wanted <= gpus):
        return slots
    return min(slots, gpus // wanted)


def own_gpus(number: int, wanted: int, ids: Sequence[str], *, shared: bool) -> list[str]:
    """Returns the GPUs of a slot (`number` from 0). Two slots share one only if `shared`."""
    every = [*ids] * (number + 2) if shared else [*ids]
    return every[number * wanted : (number + 1) * wanted]


class Share(NamedTuple):
    """A slot's part of its machine: its number, from 0, and how many slots the machine has."""

    number: int
    slots: int
    gpus: int = 0
    """GPUs that a job needs."""
    shared: bool = False


def share_variables(share: Share, processors: int, gpus: Gpus, given: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that keep a job to its slot's part. Those in `given` stay as they are."""
    threads = str(max(processors // share.slots, 1))
    found = {name: threads for name in THREADS if name not in given}
    if share.gpus and gpus.maker:
        ids = own_gpus(share.number, share.gpus, gpus.ids, shared=share.shared)
        found[VISIBLE[gpus.maker]] = ",".join(ids)
    return found


class Lender:
    """Lends a slot whole GPUs of its machine for one job after another.

    `locks`: a folder in which all slots lock a file for each GPU that they use; None: a slot lends its own
    share. `packed`: whether jobs of the run need more than their slots have; then a job that says nothing
    sees no GPU but those of its slot.
    """

    def __init__(
        self,
        share: Share,
        locks: Path | None = None,
        packed: Callable[[], bool] = lambda: False,
        find: Callable[[], Gpus] = find_gpus,
    ) -> None:
        self._find = find
        self._share = share
        self._packed = packed
        self._locks = locks
        self._held: list[int] = []

    def lend(self, said: float | None, check: Callable[[], None]) -> dict[str, str] | None:
        """Returns the variable by which a job sees so many GPUs; None: it sees what its slot sees.

        `said`: what the job says. While too few are free, it waits, and calls `check`. Raises UsageError and
        SickMachine.
        """
        number, _, usual, shared = self._share
        as_usual = said is None and not self._packed()
        if as_usual and not usual:
            return None
        wanted, gpus = usual if said is None else int(said), self._find()
        if wanted and not gpus.ids:
            raise SickMachine("no GPU is found, by nvidia-smi, rocm-smi or CUDA_VISIBLE_DEVICES")
        if wanted > len(gpus.ids):
            what = f"the job needs {many(wanted, 'GPU')}, and the machine has {len(gpus.ids)}"
            raise UsageError(what, "lower what the job needs")
        own: Sequence[str] | None = own_gpus(number, max(wanted, usual), gpus.ids, shared=shared)[:wanted]
        ids = own if self._locks is None or shared else None
        while ids is None:
            first = number * usual  # its own, as far as they are free
            if (ids := self._take(wanted, [*gpus.ids[first:], *gpus.ids[:first]])) is None:
                check()
                time.sleep(_PAUSE)
        if as_usual or not gpus.maker or (self._locks is None and wanted == usual):
            return None
        return {VISIBLE[gpus.maker]: ",".join(ids)}

    def take_back(self) -> None:
        """Lets other slots have them."""
        while self._held:
            os.close(self._held.pop())

    def _take(self, wanted: int, ids: Sequence[str]) -> list[str] | None:
        free = (each for each in ids if self._lock(each))
        taken = list(islice(free, wanted))
        if len(taken) == wanted:
            return taken
        self.take_back()
        return None

    def _lock(self, gpu: str) -> bool:
        assert self._locks is not None
        file = self._locks / f"gpu-{quote(gpu, safe='')}.lock"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held.append(descriptor)
        return True


def variables_here(share: Share, own: Mapping[str, str]) -> dict[str, str]:
    """Returns `share_variables` of a slot on this machine; `own` is what the config sets."""
    gpus = find_gpus() if share.gpus else Gpus()
    return share_variables(share, cores(), gpus, {**os.environ, **own})


def cores() -> int:
    """Returns the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
