"""Compute-efficient self-supervised speech models, replicated."""

import os

# Read by OpenMP when torch is loaded. Its threads spin while they wait; on two cores with one other busy process that made an update of a
# small model seven times slower (69 s against 9 s for 60 updates of 16 s of audio).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
