"""The pages for people: captures listed, searched and compared in a browser, drawn on the server.

What is here knows `Library` and nothing of stores, files or clusters. Everything works by links and forms alone; one
script of ours adds keys and copying. Pages allow no inline style or script and nothing from another origin, no text is
markup unless `html` made it, and bytes of an artifact never leave as anything but an attachment. The one exception is
a drawing made by the renderer, which is served in a sandbox without an origin.

Who is looking is `access`'s business: a pasted token, an identity that a proxy vouches for, or the one person who
started the server on loopback.
"""
