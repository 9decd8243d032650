"""Sees that a run has a head: a process beside the workers of a pilot, which any other pilot replaces."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from pathlib import Path

from ...background import complain
from ...clock import Clock, SystemClock
from ...errors import DsError, QueueDamaged, Unreachable
from .head import Head, stand
from .place import Look, Place, Pulse
from .replica import Replica, Terms

STANDING_SECONDS = 30.0
"""Another process that has said it becomes the head has this long before we try it ourselves."""

AGAIN_SECONDS = 5.0
"""Between two heads that this pilot starts, in seconds: one that cannot write must not be started at once."""

UNSEEN_SECONDS = 120.0
"""What another computer wrote and cannot be seen here after this time is damaged. NFS takes up to 60 s."""

END_SECONDS = 20.0


class Keeper:
    """Starts a head where none lives. One thread."""

    def __init__(self, place: Place, terms: Terms, clock: Clock, scratch: Path) -> None:
        self._place = place
        self._terms = terms
        self._clock = clock
        self._scratch = scratch
        self._pulse = Pulse(clock)
        self._head: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._announced = (0, 0.0)
        """The latest epoch that another process said it becomes the head of, and since when we know."""

    @property
    def pid(self) -> int | None:
        """The process of our head, where it lives."""
        return self._head.pid if self._head is not None and self._head.poll() is None else None

    def tend(self, look: Look) -> None:
        """Start a head where none lives, unless another process is about to."""
        if self.pid is not None or not self._pulse.is_gone(look) or not self._is_our_turn(look.epoch + 1):
            return
        self.end()
        self._not_before = self._clock.monotonic() + AGAIN_SECONDS
        given = [
            str(self._place.folder),
            str(look.epoch),
            json.dumps(self._terms.facts()),
            str(self._scratch),
        ]
        try:
            self._head = subprocess.Popen([sys.executable, "-m", __name__, *given], stdin=subprocess.PIPE)
        except OSError as error:  # no room for a process more: the next turn tries again
            complain(f"no head could be started: {error}")

    def _is_our_turn(self, epoch: int) -> bool:
        now = self._clock.monotonic()
        if now < self._not_before:
            return False
        if self._announced[0] == epoch:
            return now - self._announced[1] > STANDING_SECONDS
        if self._place.announce(epoch):
            return True
        self._announced = epoch, now
        return False

    def end(self) -> None:
        """Have our head hand over, and wait for it."""
        head, self._head = self._head, None
        if head is None:
            return
        assert head.stdin is not None
        head.stdin.close()
        try:
            head.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()


def main(folder: str, epoch: str, terms: str, scratch: str) -> int:
    """The head's process: it serves until its pilot closes our stdin, or there is another head.

    Slurm ends a pilot by SIGTERM to all of its processes. The head goes on, as the workers have to settle.
    """
    for order in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        signal.signal(order, signal.SIG_IGN)
    place, clock, wanted = Place(Path(folder)), SystemClock(), Terms.of(json.loads(terms))
    replica = Replica(place, wanted, Path(scratch))
    try:
        head = _stand(replica, int(epoch), wanted, clock)
        if head is None:
            return 0
        head.load_new()
        complain(f"head of epoch {head.epoch}")
        complain(f"head of epoch {head.epoch} ended: {head.serve(_pilot_has_ended)}")
    except QueueDamaged as error:
        complain(f"the head ended: {error}")
        place.order("damaged")
        return 1
    except (DsError, OSError) as error:
        complain(f"the head ended: {error}")
        return 1
    finally:
        replica.close()
    return 0


def _stand(replica: Replica, epoch: int, terms: Terms, clock: Clock) -> Head | None:
    """Become the head that follows that of an epoch; None where another process was quicker.

    What cannot be seen yet is waited for. Raises QueueDamaged where it never comes.
    """
    until = clock.monotonic() + UNSEEN_SECONDS
    while (look := replica.place.look()).epoch == epoch and not _pilot_has_ended():
        try:
            return stand(replica, look, terms, clock)
        except Unreachable as unseen:
            if clock.monotonic() > until:
                raise QueueDamaged(f"{unseen.what}, for {UNSEEN_SECONDS:.0f} s", unseen.fix) from unseen
            clock.wait(1.0)
    return None


def _pilot_has_ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
