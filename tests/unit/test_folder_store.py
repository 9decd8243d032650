"""What a folder on a network file system does to a store, and a disk that loses what was written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from distributed_something.local.store import FolderStore, link_exclusively


class LosesReplies(type(Path())):  # type: ignore[misc]
    """The link is made, its reply is lost, and the request that is sent again finds the name taken."""

    def hardlink_to(self, target: Path) -> None:
        super().hardlink_to(target)
        super().hardlink_to(target)


class RefusesOddly(type(Path())):  # type: ignore[misc]
    """sshfs says EPERM where the name is taken."""

    def hardlink_to(self, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own"
    file.write_text("mine")
    return file


def test_who_made_the_link_knows_it_though_the_reply_was_lost(own: Path, tmp_path: Path) -> None:
    assert link_exclusively(own, LosesReplies(tmp_path / "claim"))
    other = tmp_path / "other"
    other.write_text("theirs")
    assert not link_exclusively(other, LosesReplies(tmp_path / "claim"))
    assert (tmp_path / "claim").read_text() == "mine"


def test_a_name_that_is_taken_is_taken_whatever_the_error_says(own: Path, tmp_path: Path) -> None:
    (tmp_path / "claim").write_text("theirs")
    assert not link_exclusively(own, RefusesOddly(tmp_path / "claim"))
    with pytest.raises(PermissionError):
        link_exclusively(own, RefusesOddly(tmp_path / "free"))


def test_a_durable_store_that_cannot_sync_takes_back_what_it_appended() -> None:
    """/dev/full stands for a disk that loses what was written: the caller must not take it for stored."""
    with pytest.raises(OSError, match="No space"):
        FolderStore(Path("/dev"), durable=True).append("full", b"line\n")
