"""Patients: summaries of their cells, and predictions of an outcome from bulk expression.

`cohort` reads cells into one row per patient, `features` computes features learnt from training
patients only, `network` predicts from bulk expression alone, `nested` cross-validates, `scores`
compares the result with baselines. Import the modules themselves; this package imports nothing.
"""
