"""The strength of predicted effects, calibrated on measured perturbations."""
