"""Leases: which question is being shown to whom, and until when. A lease keeps a question free for that person."""

from typing import Dict, List, NamedTuple, Optional

LEASE_SECONDS = 600
"""How long a question is kept for a person after it was last shown to them."""


class Lease(NamedTuple):
    """When a question was first shown to a person, and when it is no longer kept for them (seconds of the clock)."""

    shown_at: float
    expires: float


class Leases:
    """The leases of all questions. They are in memory only: after a restart nobody holds one."""

    def __init__(self):
        self._leases: Dict[int, Dict[str, Lease]] = {}  # by question number, then by person

    def held_by(self, who: str) -> List[int]:
        """Return the numbers of the questions that a person was shown, even if their leases have expired."""
        return [number for number, leases in self._leases.items() if who in leases]

    def num_others(self, number: int, who: str, now: float) -> int:
        """Return how many people other than `who` hold a lease on a question at the time `now`."""
        leases = self._leases.get(number, {})
        return sum(lease.expires > now and name != who for name, lease in leases.items())

    def num_of_others(self, who: str, now: float) -> int:
        """Return how many leases people other than `who` hold at the time `now`."""
        return sum(self.num_others(number, who, now) for number in self._leases)

    def take(self, number: int, who: str, now: float) -> None:
        """Give a person a lease on a question, or extend the one they hold."""
        leases = self._leases.setdefault(number, {})
        before = leases.get(who)
        shown_at = before.shown_at if before and before.expires > now else now
        leases[who] = Lease(shown_at, now + LEASE_SECONDS)

    def seconds_since_shown(self, number: int, who: str, now: float) -> Optional[float]:
        """Return how long ago the question was first shown to the person; None without a lease."""
        lease = self._leases.get(number, {}).get(who)
        return round(now - lease.shown_at, 1) if lease else None

    def end(self, number: int, who: str) -> None:
        """End a person's lease on a question, if they hold one."""
        self._leases.get(number, {}).pop(who, None)

    def end_all_on(self, number: int) -> None:
        """End everybody's leases on a question."""
        self._leases.pop(number, None)

    def end_all_of(self, who: str) -> None:
        """End all leases of a person."""
        for leases in self._leases.values():
            leases.pop(who, None)
