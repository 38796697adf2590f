"""The normal distribution and log gamma of scipy, without the rest of scipy.special.

The package imports numpy.f2py, numpy.testing, pydoc and an array interface for other libraries:
0.11 to 0.14 CPU seconds in every command that runs a test. Its main compiled module loads a BLAS
of its own besides, which takes .02 and starts a thread for every core. These functions are ufuncs
of a smaller one (`vcell.extensions`); Student's t is not, see `vcell.student`.
"""

from __future__ import annotations

from typing import Any

from vcell import extensions

ndtr: Any
gammaln: Any
try:
    (_found,) = extensions.load("scipy.special", {"_special_ufuncs": ("ndtr", "gammaln")})
    ndtr, gammaln = _found.ndtr, _found.gammaln
except (ImportError, AttributeError):  # a scipy that has them elsewhere
    from scipy import special as _whole

    ndtr, gammaln = _whole.ndtr, _whole.gammaln
