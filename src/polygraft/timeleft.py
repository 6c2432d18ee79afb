"""The time left of a long step, from how fast it went: half on the whole, half lately."""

from __future__ import annotations

from collections import deque

WINDOW = 60.0  # seconds that count as lately
SHARE, SECONDS = 0.03, 10.0  # of progress, either one, before anything is said


class TimeLeft:
    """`left(now, done, total)`: seconds left, None while unknown.

    The first news is where counting begins: what was before it (loading, imports) says nothing of the speed, as does not what an
    earlier run had done. A total that changes, or work that is taken back, begins it anew. The speed is the mean of the whole's and
    the last minute's: it follows a change, and one slow batch of long answers does not turn minutes into hours.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.seen: deque[tuple[float, float]] = deque()  # (time, done), of the last WINDOW seconds

    def __call__(self, now: float, done: float, total: float) -> float | None:
        if total != self.total or (self.seen and done < self.seen[-1][1]):
            self.seen.clear()
            self.total, self.first = total, (now, done)
        self.seen.append((now, done))
        while len(self.seen) > 2 and self.seen[1][0] <= now - WINDOW:
            self.seen.popleft()
        if total > 0 and done >= total:
            return 0.0
        since, before = self.first
        then, had = self.seen[0]
        if done <= had or now <= then or (done - before < SHARE * total and now - since < SECONDS):
            return None
        speed = ((done - had) / (now - then) + (done - before) / (now - since)) / 2
        return (total - done) / speed
