"""`python -m service.cli` is the `offkey` command."""

from service.cli import main

main()
