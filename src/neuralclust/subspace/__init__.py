"""Self-expressive subspace clustering: every row as a combination of others of its own subspace.

Solvers are functions from rows to coefficients, row i of which expresses row i; :class:`SubspaceClustering` goes on to
their graph and its spectral partition.
"""

from neuralclust.subspace.estimator import Postprocess, SubspaceClustering, affinity, refine
from neuralclust.subspace.lowrank import lrr, lrsc, lsr1, lsr2, smr
from neuralclust.subspace.pursuit import ssc_omp
from neuralclust.subspace.sparse import elastic_net, kernel_ssc, ssc

__all__ = [
    "Postprocess",
    "SubspaceClustering",
    "affinity",
    "elastic_net",
    "kernel_ssc",
    "lrr",
    "lrsc",
    "lsr1",
    "lsr2",
    "refine",
    "smr",
    "ssc",
    "ssc_omp",
]
