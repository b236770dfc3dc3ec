"""Plans that aim at one fault each; the real runner has to stand them.

Each is here for something that a random plan meets too seldom. Waits are measured soon after
each fault.
"""

from chaos.plan import Fault, Load, Plan

KILLS = 20

QUICK = Load(http_rate=4, sql_rate=0, cancel_rate=0, deeds=("work",), work_seconds=(0, 0.1))
# Two of three runners away make a queue; a claim that arrives late finds something to take.
STEADY = Load(
    http_rate=5, sql_rate=0, cancel_rate=0, deeds=("work",), work_seconds=(0.6, 0.6), slow_one_in=0
)
# Retries come due while commits wait for the standby, so that claims wait as well.
RETRIES = Load(http_rate=6, sql_rate=0, cancel_rate=0, deeds=("flaky",), work_seconds=(0, 0.1))
# A job every 5 s, each just while nobody listens.
RARE = Load(
    http_rate=0.4, sql_rate=0, cancel_rate=0, deeds=("work",), work_seconds=(0, 0.1),
    slow_one_in=0, even=True,
)  # fmt: skip

_PLANS = (
    Plan(
        1, 17, tuple(Fault(2, "late_link", 13, target) for target in (0, 1)), STEADY,
        "late_claim", poll_seconds=0.1, lease_seconds=30, drain_seconds=30,
    ),
    Plan(
        1, 22, (Fault(6, "standby_away", 14),), RETRIES,
        "standby_away", lease_seconds=30, drain_seconds=30,
    ),
    Plan(
        1, 17,
        tuple(Fault(at, "cut_link", 1, target) for at in (4.5, 9.5) for target in range(3)),
        RARE, "deaf_gap", poll_seconds=60, lease_seconds=30, drain_seconds=12,
        recovery_seconds=1,
    ),
    Plan(
        1, 6 * KILLS + 4,
        tuple(Fault(2 + 6 * place, "runner_kill", 1, place % 3) for place in range(KILLS)),
        STEADY, "kills", lease_seconds=30, recovery_seconds=1,
    ),
    Plan(
        1, 24, (Fault(6, "failover", 1),), QUICK, "failover", lease_seconds=30,
    ),
    Plan(
        1, 32, tuple(Fault(at, "crash_after_claim", 0.2) for at in range(3, 31, 3)),
        STEADY, "forgotten_claims", lease_seconds=30, drain_seconds=30, recovery_seconds=1,
    ),
)  # fmt: skip

PLANS = {plan.name: plan for plan in _PLANS}
# Takes its time: it is there for its figures, the median and the worst time to a rescue.
MEASURES = ("kills",)
