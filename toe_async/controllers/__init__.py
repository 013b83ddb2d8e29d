"""One folder per kind; in each, observe -> plan (pure) -> apply. The kinds meet only through apis and the cluster."""
