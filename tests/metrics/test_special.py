"""The special functions that are loaded without scipy.special are scipy's own."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import numpy as np
from vcell import special, student
assert "scipy.special" not in sys.modules and "numpy.f2py" not in sys.modules
from scipy import special as whole, stats
for module, names in (special, ("ndtr", "gammaln")), (student, ("ndtri", "stdtr", "stdtrit")):
    for name in names:
        assert getattr(whole, name) is getattr(module, name)
assert whole.gammaln(3.0) == np.log(2) and whole.softmax([0.0, 0.0])[0] == 0.5
assert stats.norm.cdf(0.3) == special.ndtr(0.3)
"""


def test_the_functions_are_scipys_and_the_package_can_still_be_imported():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
