"""A recorder of what a node, a container and its processes do, and the page that shows it.

`kernelfiles` (pure) and `groups` read the kernel's files, `sample` puts one moment together, `recorder` repeats that
into `sysreport.jsonl`, `series` and `rates` (pure) make bounded time series of them, `findings` (pure) says what stands
out, and `page` writes `sysreport.html`. It needs no right but to read what every process may read; what cannot be read
is missing from the report and named in it. Standard library only, Python 3.9 or later. Not in here: duration, limits
and upload, which are the supervisor's.

Lines of sysreport.jsonl are JSON objects: the first is the header, each other one a sample with the seconds since the
start in `t`. Counters are as the kernel has them, sizes in bytes, times in the unit that their key ends in.
"""
