"""Scores and tests: arrays and blocks in, arrays and frames out. No files, no torch.

`vcell.metrics.groups` sums and ranks cells by group in bounded memory, `de` turns that into
differential expression, `vcc2025` and `vcc2026` hold the challenge's metrics, which need nothing
but means and tables, so that a trainer can score an epoch in milliseconds.
"""
