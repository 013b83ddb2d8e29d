"""PowerToolConfig: whether an approved tool can be run, told before anybody runs it."""
