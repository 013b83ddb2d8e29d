"""The read API: artifacts as objects of the group `artifacts.toe.run`, for kubectl and for pages."""
