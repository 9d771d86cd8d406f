"""`python -m jitwarm`."""

from jitwarm.cli import main

main()
