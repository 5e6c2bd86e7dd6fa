"""`python -m pocketbert.cli` is `pocketbert`."""

from pocketbert.cli import main

main()
