"""The read API: artifacts as objects of the group `artifacts.toe.run`, for kubectl, for tokens and for pages.

A request goes through `routes` (which call, which form of answer, errors as Statuses), `identity` or `frontproxy`
(whose it is), and `local` (the library: rights, then what is there). What is asked for is read by `selection`,
`patching`, `options` and `negotiation`, and what is shown is made by `objects`, `tables`, `discovery` and `openapi`,
all of them pure. What does not belong here: finding artifacts (catalog), their bytes (the backends), drawing them
(rendering), and pages.

An artifact changes in one way only, by its hold; it is deleted by users and by retention, and a held one by neither.
Deleting a namespace deletes its artifacts, as an API server does with every object in it, and waits for held ones to
be released: a later namespace of the same name must not show what was taken from the one before.
"""
