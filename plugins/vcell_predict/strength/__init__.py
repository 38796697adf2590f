"""The strength of predicted effects, learnt from measured perturbations."""
