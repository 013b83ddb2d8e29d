"""What to take from one target: whether it opted in, when to fire, under which identity, and pprof over a port-forward."""
