"""The calls, over real sockets: what each answers, and what it leaves on disk."""
