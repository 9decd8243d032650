"""How long pilots have lived, as the names of their files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_something.cluster.lives import Life, OwnLife, hours, lives
from distributed_something.cluster.shared.files import Files


def test_lives_add_up_whether_they_are_over_or_not(tmp_path: Path) -> None:
    first = OwnLife(tmp_path, "7_1", "node-a-1", 1000.0)
    second = OwnLife(tmp_path, "7_2", "n2", 1000.5)
    assert hours(lives(tmp_path, Files()), 0.0) == 0
    assert first.beat(4600.0)
    assert not second.beat(1030.0), "not so soon"
    assert second.beat(1036.9, over=True)
    found = sorted(lives(tmp_path, Files()))
    assert found == [Life(1000, 1036, True, "7_2", "n2"), Life(1000, 4600, False, "7_1", "node-a-1")]
    assert hours(found, 0.0) == pytest.approx(1.01)


def test_a_pilot_that_starts_again_has_two_lives(tmp_path: Path) -> None:
    for start in (1000.0, 9000.0):
        OwnLife(tmp_path, "7_1", "n1", start).beat(start + 1800, over=True)
    assert hours(lives(tmp_path, Files()), 0.0) == 1.0


def test_a_file_that_is_seen_under_two_names_counts_once(tmp_path: Path) -> None:
    OwnLife(tmp_path, "7_1", "n1", 1000.0)
    (tmp_path / "lives" / Life(1000, 4600, False, "7_1", "n1").name).touch()
    assert hours(lives(tmp_path, Files()), 0.0) == 1.0


def test_a_clock_that_is_set_back_shortens_no_life(tmp_path: Path) -> None:
    life = OwnLife(tmp_path, "7_1", "n1", 1000.0)
    life.beat(4600.0)
    life.beat(2000.0, over=True)
    assert hours(lives(tmp_path, Files()), 0.0) == 1.0


def test_no_pilot_has_lived_before_the_first(tmp_path: Path) -> None:
    assert lives(tmp_path, Files()) == []


def test_a_pilot_that_runs_has_lived_until_now(tmp_path: Path) -> None:
    OwnLife(tmp_path, "7_1", "n1", 1000.0)
    OwnLife(tmp_path, "7_2", "n1", 1000.0).beat(1010.0, over=True)
    found = lives(tmp_path, Files())
    assert hours(found, 1026.0) == pytest.approx(0.01)
    assert hours(found, 9999.0) == pytest.approx(70 / 3600), "it says that it lives once a minute"
