"""``python -m chaos``: a campaign of seeded runs, the mutants, or both.

Every plan is printed before it runs. The exit code is 0 if no run showed a violation, every
class of faults that was planned has happened, and every mutant was caught.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from chaos import campaign, plan
from chaos.campaign import Outcome
from chaos.directed import MEASURES, PLANS
from chaos.mutants import MUTANTS
from chaos.plan import Plan

SHOWN = 12
TRIES = 3


def main() -> int:
    """Run what was asked for, print tables, and give the exit code."""
    asked = _arguments()
    seeds = [asked.seed] if asked.seed is not None else list(range(1, asked.seeds + 1))
    names = list(MUTANTS) if asked.mutants else asked.mutant
    fine = [_campaign(seeds, asked.seconds)] if seeds else []
    wanted = [name for name in PLANS if name not in MEASURES] if asked.directed else []
    plans = [PLANS[name] for name in (*wanted, *asked.plan)]
    if asked.controls:
        plans += [replace(MUTANTS[name].plan, weaken=()) for name in names or MUTANTS]
    fine += [_directed(plans)] if plans else []
    fine += [_mutants(names)] if names and not asked.controls else []
    if not fine:
        print("nothing to do: see python -m chaos --help", file=sys.stderr)
        return 2
    return 0 if all(fine) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="run the seeds from 1 to this")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--seconds", type=float, default=20, help="of faults, each seed")
    parser.add_argument("--directed", action="store_true", help="run the plans of directed.py")
    parser.add_argument("--plan", action="append", default=[], choices=PLANS, metavar="NAME")
    parser.add_argument("--mutants", action="store_true", help="run all mutants")
    parser.add_argument("--mutant", action="append", default=[], choices=MUTANTS, metavar="NAME")
    parser.add_argument(
        "--controls", action="store_true", help="run the mutants' plans with the real runner"
    )
    return parser.parse_args()


def _campaign(seeds: Sequence[int], seconds: float) -> bool:
    fine, fired = True, Counter[str]()
    for seed in seeds:
        drawn = plan.draw(seed, seconds)
        print(drawn, flush=True)
        outcome = campaign.run(drawn)
        _tell(outcome)
        fine &= outcome.fine
        fired += outcome.fired
    print(f"\n{len(seeds)} seeds of {seconds:g} s; faults that happened:")
    for kind in sorted(fired):
        print(f"  {kind:<27}{fired[kind]:6}")
    return fine


def _directed(plans: Sequence[Plan]) -> bool:
    fine = True
    for one in plans:
        outcome = campaign.run(one)
        _tell(outcome)
        fine &= outcome.fine
    return fine


def _mutants(names: Sequence[str]) -> bool:
    caught = True
    print(f"\n{'mutant':<22}{'caught by':<30}first violation")
    for name in names:
        outcome = _first_caught(name)
        rules = Counter(violation.rule for violation in outcome.report.violations)
        by = ", ".join(f"{rule} {count}" for rule, count in rules.most_common(3)) or "NOT CAUGHT"
        first = next(iter(outcome.report.violations), "")
        print(f"{name:<22}{by:<30}{first}", flush=True)
        # One that crashes shows nothing of what it breaks.
        caught &= bool(rules) and "crash" not in rules
        outcome.forget()
    return caught


def _first_caught(name: str) -> Outcome:
    """Run a mutant until it is caught: what it breaks may need some luck to show."""
    for _ in range(TRIES):
        outcome = campaign.run(MUTANTS[name].plan, ["-m", "chaos.mutant", name])
        if outcome.report.violations:
            break
        outcome.forget()
    return outcome


def _tell(outcome: Outcome) -> None:
    report = outcome.report
    figures = "  ".join(f"{name} {value:.4g}" for name, value in report.figures.items())
    who = f"{outcome.plan.name} {outcome.plan.seed}"
    print(f"{who}: {len(report.violations)} violations; {figures}")
    for violation in report.violations[:SHOWN]:
        print(f"  VIOLATION {violation}")
    if outcome.unfired:
        print(f"  NEVER FIRED {', '.join(outcome.unfired)}")
    if outcome.folder:
        print(f"  histories and logs: {outcome.folder}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
