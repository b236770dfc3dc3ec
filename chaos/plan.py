"""What is to happen in a run, drawn from its seed alone, so that it can be repeated.

The plan is the same each time; what the processes make of it depends on the machine.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

RUNNERS = 3
FAULTS_PER_SECOND = 0.4
CALM_SECONDS = 1.0  # at the beginning and before the end
LEASE_SECONDS = 6.0

# How long each kind of fault lasts, in seconds; a runner that was killed is away so long.
KINDS = {
    "runner_kill": (0.2, 4.0),
    "worker_kill": (0.0, 0.0),
    "runner_pause": (LEASE_SECONDS + 2, LEASE_SECONDS + 4),
    "postgres_fast_restart": (0.2, 4.0),
    "postgres_immediate_restart": (0.2, 4.0),
    "crash_after_claim": (0.2, 4.0),
    "failover": (0.0, 2.0),
    "standby_away": (2.0, 14.0),
    "postgres_freeze": (2.0, 12.0),
    "terminate_all": (0.0, 0.0),
    "terminate_some": (0.0, 0.0),
    "cut_link": (0.0, 2.0),
    "cut_listener": (0.0, 2.0),
    "cut_web": (0.0, 2.0),
    "half_open_link": (2.0, 12.0),
    "half_open_listener": (4.0, 14.0),
    "half_open_web": (2.0, 8.0),
    "deaf_link": (2.0, 12.0),
    "deaf_web": (2.0, 8.0),
    "late_link": (8.0, 14.0),
    "delays": (2.0, 6.0),
    "stop_command": (0.3, 0.3),
    "rolling_restart": (1.0, 2.5),
    "web_kill": (0.2, 1.0),
}
# What the load brings by itself; a plan that asks for it must see it happen.
LOAD_KINDS = ("cancel", "flaky", "hopeless", "poison")


@dataclass(frozen=True)
class Fault:
    """A fault: when it begins (seconds from the start), how long it lasts, whom it hits."""

    at: float
    kind: str
    seconds: float = 0.0
    target: int = 0

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.kind:<27}{self.seconds:6.2f} s  target {self.target}"


@dataclass(frozen=True)
class Load:
    """What the clients do: operations a second, and what they ask the model to do."""

    http_rate: float = 10.0
    sql_rate: float = 4.0
    cancel_rate: float = 1.0
    deeds: tuple[str, ...] = ("work",) * 14 + ("flaky",) * 3 + ("hopeless",) + ("poison",) * 2
    work_seconds: tuple[float, float] = (0.0, 0.3)
    # One job in so many takes about so long instead; 0: none.
    slow_one_in: int = 12
    slow_seconds: float = 2.0
    # Calls come at even intervals, not at random ones.
    even: bool = False


@dataclass(frozen=True)
class Plan:
    """A run: its faults, its load, and the settings of the services."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    load: Load = field(default_factory=Load)
    name: str = "random"
    runners: int = RUNNERS
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 1.0
    drain_seconds: float = 60.0
    # After a fault, before waits are measured again.
    recovery_seconds: float = 6.0
    # Statements that the owner of the database executes at the start of this run.
    weaken: tuple[str, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The classes of faults that must be seen to happen."""
        load = {deed for deed in self.load.deeds if deed in LOAD_KINDS}
        cancels = {"cancel"} if self.load.cancel_rate else set()
        return frozenset({fault.kind for fault in self.faults} | load | cancels)

    @property
    def wants_standby(self) -> bool:
        """Whether there has to be a standby that can be promoted."""
        return any(fault.kind in ("failover", "standby_away") for fault in self.faults)

    def __str__(self) -> str:
        head = f"plan {self.name}, seed {self.seed}, {self.seconds:g} s"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


def draw(seed: int, seconds: float) -> Plan:
    """Draw a plan; seeds that follow each other take turns at the classes of faults."""
    chance = random.Random(seed)
    count = max(1, round(seconds * FAULTS_PER_SECOND))
    deck = _deck(seed * count)
    kinds = [next(deck) for _ in range(count)]
    while kinds.count("failover") > 1:  # there is one standby
        kinds[kinds.index("failover")] = next(deck)
    times = sorted(chance.uniform(CALM_SECONDS, seconds - CALM_SECONDS) for _ in kinds)
    chance.shuffle(kinds)
    kinds = _with_standby_first(kinds)
    drawn = [_draw_fault(chance, kind, at) for kind, at in zip(kinds, times, strict=True)]
    return Plan(seed, seconds, tuple(drawn))


def _with_standby_first(kinds: list[str]) -> list[str]:
    """Put the failover after what befalls the standby: there is none any more then."""
    if "failover" not in kinds:
        return kinds
    place = kinds.index("failover")
    later = [other for other in range(place, len(kinds)) if kinds[other] == "standby_away"]
    for other in later[-1:]:
        kinds[place], kinds[other] = kinds[other], kinds[place]
    return kinds


def _deck(start: int) -> Iterator[str]:
    kinds = list(KINDS)
    random.Random(0).shuffle(kinds)
    while True:
        yield kinds[start % len(kinds)]
        start += 1


def _draw_fault(chance: random.Random, kind: str, at: float) -> Fault:
    shortest, longest = KINDS[kind]
    return Fault(
        at=round(at, 2),
        kind=kind,
        seconds=round(chance.uniform(shortest, longest), 2),
        target=chance.randrange(RUNNERS),
    )
