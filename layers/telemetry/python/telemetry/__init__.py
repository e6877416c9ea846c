"""The shared layer: how a reading is recognised, stored and reported on."""

import gc

__version__ = "1.0.0"

# What an import makes stays, and so does what a request makes until it is answered: looking through
# it for cycles after every few thousand objects is a sixteenth of a cold start, a tenth of the
# validation of a batch, and finds next to nothing.
gc.set_threshold(100_000)
