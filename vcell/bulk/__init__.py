"""Pseudobulk: sums of cells drawn by type, with known composition.

`vcell pseudobulk` is the command for this package; a pipeline uses it from Python::

    from vcell.bulk.deconvolve import Signatures
    from vcell.bulk.draw import Sampling
    from vcell.bulk.pools import Pools
    from vcell.bulk.scores import scored
    from vcell.bulk.sums import all_samples, samples

    with open_cells("cells.h5ad") as source:
        pools = Pools.read(source, "cell_type", by="patient", split_by="split")
        sampling = Sampling(samples=10, cells=500, mode="sparse", seed=0)  # ten of each patient
        mixed = all_samples(source, pools, sampling)
        signatures = Signatures.learn(source, pools, n_genes=2000)  # of other splits or patients

    mixed.counts     # (samples, genes) sums of the counts, int32
    mixed.drawn.fractions  # (samples, types) shares of the cells that were drawn
    mixed.drawn.group      # (samples,) into pools.groups, each with its `by` and `split`
    mixed.drawn.cells      # (samples, cells) the rows of the source that were summed

    found = signatures.estimate("em", mixed.counts, mixed.drawn.group)  # or "nnls"
    scored(mixed.drawn.fractions, found, pools.types).overall_ccc

`samples` yields the same a few at a time, in bounded memory. Draws depend only on the seed, the
group and the number of a sample in its group, and not on the number of samples, genes, memory or
threads.

Import the modules themselves; this package imports nothing.
"""
