"""Patients: what their cells come to, and what their bulk expression says of an outcome.

`cohort` reads cells into one table a patient, `features` turns it into numbers learnt from
training patients only, `network` predicts from bulk expression alone, `nested` cross-validates,
`scores` says how well and beside what. Import the modules themselves; this package imports nothing.
"""
