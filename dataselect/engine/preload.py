"""Imported once by the fork server: workers inherit the modules and the compiled kernels."""

import dataselect.engine.read
import dataselect.engine.reduce
import dataselect.engine.write
import dataselect.kernels.preload
import dataselect.stages

dataselect.stages.registry()
