"""Faults on a real system, three histories of what happened, and a checker that reads them."""
