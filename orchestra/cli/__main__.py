"""`python -m orchestra.cli`: the command line without the console script."""

from orchestra.cli.main import main

main()
