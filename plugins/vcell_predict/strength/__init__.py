"""How strong predicted effects are written, by what measured perturbations show."""
