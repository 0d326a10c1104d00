"""Imported once by the fork server: workers inherit the modules and the compiled kernels."""

import numpy as np
import pyarrow as pa

import dataselect.engine.lookup
import dataselect.engine.read
import dataselect.engine.reduce
import dataselect.engine.write
import dataselect.kernels.arrow
import dataselect.kernels.preload
import dataselect.stages

dataselect.stages.registry()
pa.array(np.zeros(1))  # with the first array from numpy Arrow imports pandas, where there is one: 0.35 s
