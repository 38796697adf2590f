"""Compiled kernels: arrays in, arrays out, no I/O.

Every kernel is a serial ``@njit(nogil=True, cache=True)`` function that *adds to* arrays its caller
made, so a pass over a file calls it block by block, and vcell's threads, not numba's, run several
at once (numba's default threading layer aborts when it is entered twice). `vcell.kernels.kernel`
makes them. Shapes: ``C`` cells of a block, ``N`` its non-zeros, ``G`` genes, ``B`` batches. A block
is CSR: ``indptr`` int64 ``[C+1]``, ``indices`` int32 ``[N]``, ``data`` float32 ``[N]`` (float64
where it was stored so). ``codes`` int32 ``[C]`` says which batch or group a cell belongs to; -1
leaves it out.

Kernels are compiled on first use, so code that is slow to compile is avoided: assigning an array to
a slice (``a[:] = b``) costs two seconds, `np.sort` one, `sum` and `np.searchsorted` .3 each, a loop
nothing.
"""
