"""Run the command line: `python -m audiobert`."""

from audiobert.cli import main

main()
