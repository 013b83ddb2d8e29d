"""What runs inside tool containers: standard library only, so that a tool's image needs nothing but python3."""
