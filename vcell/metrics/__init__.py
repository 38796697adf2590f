"""Scores and tests: arrays and blocks in, arrays and frames out. No files; torch in one module.

- `groups`: sums, means and rank sums of groups of cells from CSR blocks, in bounded memory.
- `de`: differential expression of what `groups` found (`differential`, `benjamini_hochberg`).
- `vcc2025`: DES, PDS, MAE and their relatives; `calls`: more of cell-eval's full profile.
- `vcc2026`: measuring a side, the six members, both anchors and the scale.
- `scaled`: cells normalised on the fly; `torch`: PDS and MAE of tensors, with gradients.

Profiles and tables are all that the metrics need, so a trainer scores an epoch's P x G pseudobulks
in milliseconds, without any cell.
"""
