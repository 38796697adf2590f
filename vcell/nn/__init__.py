"""The transformer that models are built of: presets, encoder, attention, and what it will cost.

Only `vcell.nn.presets` is free of torch; import the modules themselves:
``from vcell.nn.encoder import Encoder``. Measured by ``python benchmarks/transformer.py``.
"""
