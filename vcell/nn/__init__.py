"""The transformer that models are built from: presets, encoder, attention, and its cost.

Only `vcell.nn.presets` is free of torch; import the modules themselves:
``from vcell.nn.encoder import Encoder``. Measured by ``python benchmarks/transformer.py``.
"""
