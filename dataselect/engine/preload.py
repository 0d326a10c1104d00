"""Imported once by the fork server: workers inherit modules, compiled kernels, and a deaf ear for Ctrl-C.

Ctrl-C reaches the whole process group, and the coordinator decides: a worker that is just starting must not
answer it with a traceback.
"""
# ruff: noqa: E402

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)

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
