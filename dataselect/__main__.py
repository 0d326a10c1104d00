"""`python -m dataselect`."""

from dataselect.cli import main

main()
