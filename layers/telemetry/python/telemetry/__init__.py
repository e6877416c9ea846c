"""The shared layer: how a reading is recognised, stored and reported on."""

__version__ = "1.0.0"
