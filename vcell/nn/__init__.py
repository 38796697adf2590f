"""The transformer that the models are built from: presets, encoder, attention, cost.

Only `vcell.nn.presets` is free of torch; import the modules themselves:
``from vcell.nn.encoder import Encoder``. Measured by ``python benchmarks/transformer.py``.
"""
