"""The time left, by a clock that is given."""

import pytest

from polygraft.timeleft import TimeLeft


def test_nothing_is_said_before_there_is_something_to_say():
    left = TimeLeft()
    assert [left(30 + t, t, 1000) for t in (0, 1, 5, 9)] == [None] * 4, "under 3 % and under 10 s"
    assert left(40, 10, 1000) == pytest.approx(990)
    assert [TimeLeft()(60, 1, 1400)] == [None], "a slow start is no speed"


def test_three_per_cent_are_enough():
    left = TimeLeft()
    assert left(0, 0, 100) is None and left(1, 2, 100) is None and left(2, 4, 100) == pytest.approx(48)


def test_it_follows_recent_speed():
    left = TimeLeft()
    for t in range(100):
        left(t, t * 0.01, 1000)
    for t in range(100, 200):
        found = left(t, 1 + (t - 100) * 2, 1000)
    assert found == pytest.approx((1000 - 199) / 1.5, rel=0.02), "2 lately and 1 on the whole"


def test_one_slow_batch_does_not_turn_minutes_into_hours():
    left = TimeLeft()
    for t in range(61):
        left(t, t, 1000)
    assert left(300, 61, 1000) < 2 * (1000 - 61) / (61 / 300)


def test_rare_news_still_count():
    left = TimeLeft()
    assert [left(100 * n, n, 10) for n in range(4)] == [None, 900, 800, 700]


def test_another_total_begins_anew_and_the_end_is_zero():
    left = TimeLeft()
    left(0, 0, 1000)
    assert left(20, 10, 1000) and left(21, 10, 100) is None and left(22, 20, 100) == pytest.approx(8)
    assert left(23, 15, 100) is None, "work taken back"
    assert left(24, 100, 100) == 0.0 and left(25, 0, 0) is None
