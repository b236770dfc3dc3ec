"""``python -m chaos.mutant NAME start …``: the command ``jobrunner`` with one step broken."""

import sys

from chaos.mutants import MUTANTS
from jobrunner import cli


def main() -> None:
    """Break the step, then be the command."""
    MUTANTS[sys.argv.pop(1)].patch()
    cli.main()


if __name__ == "__main__":
    main()
