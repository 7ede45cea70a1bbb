"""What must be true of a world of cron, whatever befell it.

C1  no time of an entry is fired twice
C2  what is fired is a time of its entry, and no other
C3  it is fired neither before its time nor after its grace
C4  every time is fired, unless nobody was able to work long enough until its grace or the entry's next time came
C5  an interval counts from the end of its run, and no two of its runs are there at once
C6  every run ends
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from verification.simulation.cron_entries import INTERVAL_SECONDS, Watched, times_of
from verification.simulation.cron_world import GRACE_SECONDS, INTERVAL_URL, CronWorld, Seen

_ENOUGH_SECONDS = 600.0
"""In so long a process that is able to work does it, through failing and hanging statements."""

_LATE_SECONDS = 120.0
"""What statements may hang between the look at the clock and the commit."""

_LONGEST_GAP_SECONDS = 72 * 3600.0
"""Of an interval of seven hours: what an outage, a lost lease and a poll may add."""

_US = 1_000_000


@dataclass(slots=True)
class Findings:
    """What is wrong: the invariant, and a sentence. `unfired`: times that nobody was there for."""

    complaints: list[tuple[str, str]] = field(default_factory=list)
    unfired: int = 0

    def complain(self, invariant: str, text: str) -> None:
        """Note a broken invariant."""
        self.complaints.append((invariant, text))


def check(world: CronWorld, entries: Iterable[Watched], seconds: float, left: int) -> Findings:
    """Check the evidence of a world that has ended after so many seconds."""
    findings = Findings()
    begin = world.began_us // _US
    able = [(begin + low, begin + high) for low, high in _merged(world.spans, world.barred)]
    for watched in entries:
        seen = [each for each in world.seen if each.url == watched.entry.url]
        if watched.is_due is None:
            _check_interval(seen, world.began_us + int(seconds * _US), findings)
        else:
            times = list(times_of(watched, begin, begin + int(seconds)))
            later = [at for at in times if at - begin > _ENOUGH_SECONDS]
            fired = [each for each in seen if each.what == "fired"]
            _check_times(watched, times, fired, findings)
            _check_missed(watched.entry.url, later, fired, able, findings)
    begun, ended = (Counter(each.task for each in world.seen if each.what == what) for what in ("fired", "ended"))
    if begun != ended or left:
        findings.complain("C6", f"{(begun - ended).total()} tasks never ended, {left} rows are left")
    return findings


def _check_times(watched: Watched, times: Sequence[int], fired: Sequence[Seen], findings: Findings) -> None:
    url, known = watched.entry.url, set(times)
    for eta_us, count in Counter(each.eta_us for each in fired).items():
        if count > 1:
            findings.complain("C1", f"{url} fired {count} times for {eta_us}")
    for each in fired:
        late = (each.at_us - each.eta_us) / _US
        if each.eta_us % _US or each.eta_us // _US not in known:
            findings.complain("C2", f"{url} fired for {each.eta_us}, which is no time of it")
        if not 0 <= late <= GRACE_SECONDS + _LATE_SECONDS:
            findings.complain("C3", f"{url} fired {late:.0f} s after its time, {each.eta_us}")


def _check_missed(
    url: str, times: Sequence[int], fired: Sequence[Seen], able: Sequence[tuple[float, float]], findings: Findings
) -> None:
    done = {each.eta_us // _US for each in fired}
    for at, following in pairwise(times):
        if at in done:
            continue
        until = min(at + GRACE_SECONDS, following)
        if any(min(until, high) - max(at, low) >= _ENOUGH_SECONDS for low, high in able):
            findings.complain("C4", f"{url} was not fired for {at}, although somebody was there")
        else:
            findings.unfired += 1


def _check_interval(seen: Sequence[Seen], end_us: int, findings: Findings) -> None:
    url = INTERVAL_URL
    for one, other in pairwise(seen):
        gap = (other.eta_us - one.at_us) / _US
        if one.what == other.what:
            findings.complain("C5", f"{url} {one.what} for {one.eta_us}, and then for {other.eta_us}")
        elif other.what == "fired" and not INTERVAL_SECONDS - 60 <= gap <= _LONGEST_GAP_SECONDS:
            findings.complain("C5", f"{url} fired for a time {gap:.0f} s after the end of its run, {other.eta_us}")
    fired = [each for each in seen if each.what == "fired"]
    findings.complaints += [
        ("C3", f"{url} fired before its time, {each.eta_us}") for each in fired if each.at_us < each.eta_us
    ]
    if not fired or end_us - fired[-1].at_us > _LONGEST_GAP_SECONDS * _US:
        findings.complain("C5", f"{url} is not fired any more")


def _merged(spans: Iterable[tuple[float, float]], barred: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Give the spans in which one process could work, cut where the file was locked."""
    pieces = []
    for since, until in spans:
        for low, high in sorted(barred):
            if since < high and low < until:
                pieces.append((since, low))
                since = high
        pieces.append((since, until))
    return [(since, until) for since, until in pieces if until - since >= _ENOUGH_SECONDS]
