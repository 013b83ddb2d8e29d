"""What to take from one target: did it opt in, when to fire, under which identity, and pprof over a port-forward."""
