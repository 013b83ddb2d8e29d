"""`python -m toe_async.agent`: the supervisor without its zip file."""

import sys

from toe_async.agent.main import main

sys.exit(main(sys.argv[1:]))
