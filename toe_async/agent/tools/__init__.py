"""Small programs around the tools that do not do by themselves what a run asks of a tool.

Each is `/opt/toe/tool` of its image: it takes an argument vector, leaves files in the folder that it is told, ends
soon after SIGTERM with what was found so far, and says on stderr, in a sentence, why it could not. Not in here: what
all tools need alike (duration, limits, upload), which is the supervisor's. Standard library only, Python 3.9 or later.
"""
