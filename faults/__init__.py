"""Proof by fault injection: everything that was acknowledged is stored, whatever breaks."""

import local  # noqa: F401 - puts the layer on the path
