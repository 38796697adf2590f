"""The loop that all trainers share: a plugin provides a model, batches and a loss, nothing else.

A command's settings inherit `TrainOptions` (no torch is imported); its work calls ``Trainer(task,
options, run).fit()`` from `vcell.train.loop`. The contract a plugin author fulfils is
`vcell.train.task.Task`; ready-made batch streams are in `vcell.train.stream`.
"""

from vcell import library
from vcell.train.options import TrainOptions

__all__ = ["TrainOptions"]

library.callable_module(__name__, "train")
