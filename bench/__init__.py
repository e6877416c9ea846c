"""How near the store is to what PostgreSQL can do: ratios against a limit, both in one run."""

import local  # noqa: F401 - puts the layer on the path
