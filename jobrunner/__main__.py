"""The way in, for ``python -m jobrunner`` and for the command ``jobrunner``."""

import signal
import sys


def main() -> None:
    """Run the command; a Ctrl-C, also one while modules are being imported, ends it silently."""
    try:
        # Here, not above: the imports take long enough for somebody to change their mind.
        from jobrunner import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
