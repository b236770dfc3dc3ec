"""The way in, for ``python -m jobrunner`` and for the command ``jobrunner``."""

import os
import signal
import sys


def main() -> None:
    """Run the command; a Ctrl-C, also one while modules are being imported, ends it silently."""
    for descriptor in range(3):
        # One that is closed would be given to the next file or socket, and written to.
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    try:
        # Here, not above: the imports take long enough for somebody to change their mind.
        from jobrunner import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
