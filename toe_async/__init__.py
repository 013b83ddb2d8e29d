"""A Kubernetes operator that takes diagnostic evidence from hot pods by itself and keeps it where it can be found."""

__version__ = "0.1.0"
