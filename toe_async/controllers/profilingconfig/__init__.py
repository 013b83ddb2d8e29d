"""ProfilingConfig: watch CPU and memory, decide, claim, capture, account."""
