"""The attack corpus: what a stranger may try, on every route that the app's OpenAPI document names.

A new route is attacked by itself. What the corpus cannot tell from the document (whose id a parameter takes, a value
that a field accepts) stands in world.py; a route that asks for more fails a test, which says what to add there.

`routes` reads the document; `world` has people with one of each resource; each other module is one group of attacks:
`attack(target)` returns findings, and none is what a sound service gives. `weakened` breaks the service on purpose,
once for each group, and test_weakened shows that the group would notice.
"""
