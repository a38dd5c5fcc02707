"""Differential tests, a folder for each of the package's."""

import os

# Before torch and NumPy are loaded, here and in the processes that tests start: of tensors as small as the tests' a
# second thread waits more than it does, and where tests run side by side it takes four times what one does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
