"""``python -m toe_async`` is the command ``toe-async``."""

from toe_async.cli.main import main

main()
