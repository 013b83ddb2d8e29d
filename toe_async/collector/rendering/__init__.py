"""Pictures of artifacts: what a stranger's bytes look like, found out by a process that may do nothing else.

Here belong the child that parses and draws, the walls around it, and the queue in front of it. What a profile is and
how it is drawn belongs in `profiles`; who may look belongs to the callers.

This file imports nothing: the child must start within 150 ms.
"""
