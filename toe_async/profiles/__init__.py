"""Profiles as data: pprof and folded stacks, decoded, encoded and summed. Pure; no I/O."""
