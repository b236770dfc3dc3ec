"""``python -m jobrunner``: the command, also where it is not on the PATH."""

from jobrunner.cli import main

main()
