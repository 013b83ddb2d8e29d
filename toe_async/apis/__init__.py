"""Data only: our custom resources, the slices of core kinds that we read, and the CRDs made from them."""
