"""Small tools that could be a package of their own: standard library only, no domain words."""
