"""Faults on purpose, every one of them undone by the kernel when this process dies, however it dies (D26).

Whatever has to be undone by a handler is not undone after SIGKILL, so no effect here needs one: a stopped process runs
on when its tracer is gone, an nft table with `flags owner` goes with its socket, unlinked files and memory with their
process. Terminating a process is the exception: it cannot be undone at all.
"""
