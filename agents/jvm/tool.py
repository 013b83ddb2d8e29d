#!/usr/bin/env -S python3 -I
"""Becomes /opt/toe/tool of the image."""

import sys

sys.path.insert(0, "/opt/toe/supervisor")

from toe_async.agent.tools.jvm import main

sys.exit(main(sys.argv[1:]))
