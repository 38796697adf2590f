"""A perturbation screen: its design, the effects of perturbations, and the features of genes."""

from vcell.screen.names import read_genes, read_perturbations
from vcell.screen.screen import SCREEN, Screen
from vcell.screen.targets import members

__all__ = ["SCREEN", "Screen", "members", "read_genes", "read_perturbations"]
