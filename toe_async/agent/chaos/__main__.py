import sys

from toe_async.agent.chaos.main import main

sys.exit(main())
