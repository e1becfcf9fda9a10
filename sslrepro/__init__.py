"""Compute-efficient self-supervised speech models, replicated."""

import os

# Read by OpenMP when torch is loaded. Its threads spin while they wait for work. Where another process is busy on one of two cores, that
# made an update of a small model seven times slower; not to spin at all makes one a third slower where none is. A short spin costs
# neither (benchmarks/NOTES.md): the first line is for other OpenMPs than GNU's, which reads the second.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# Read by torch when it first makes a tensor: those of 2 MB and more lie in huge pages, where the kernel grants them. Layers stream through
# memory: with pages of 4 KB SummaryMixing's takes 10 to 15 % longer, a small model's update 7 % (benchmarks/NOTES.md)
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
