"""vcell: from raw single-cell counts to a scored virtual-cell result, with one command."""

__version__ = "0.1.0"
