"""Student's t distribution of scipy, loaded like `vcell.special`; this module needs a BLAS."""

from __future__ import annotations

from vcell import extensions

(_found,) = extensions.load("scipy.special", {"_ufuncs": ("stdtr", "stdtrit", "ndtri")})
# t's distribution function and its inverse, and the normal distribution's inverse: scipy's own.
stdtr, stdtrit, ndtri = _found.stdtr, _found.stdtrit, _found.ndtri
