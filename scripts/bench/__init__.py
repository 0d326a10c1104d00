"""Speed and memory of dataselect, beside what a plain copy costs and what other tools take.

    make bench ARGS="--peers --json figures.json"       or: PYTHONPATH=scripts python -m bench --help

Rules that keep it from flattering:

- A rate is MB (10^6 bytes of UTF-8 text) per CPU second: user + system of every process that the command
  leaves, pinned to one core, with all thread pools at one. Start-up is given apart: the rate is marginal,
  text of 2x minus 1x over seconds of 2x minus 1x.
- Every round runs every case once, 1x and 2x, so that a busy quarter of an hour hits all alike. Figures are
  medians with all rounds beside them; ratios are taken within each round, between runs over the same kind of
  text.
- The floor is measured in the same rounds: shards copied with the text parsed and nothing done to it.
- Every command says how many rows it read and kept; a wrong number of rows read is a failure.
- Outputs go to new folders, nothing is reused; the page cache is warm and kernels are compiled.

corpus -> texts   what is read          measure -> cases, peers -> rounds   what is run
figures -> table  what comes of it      floor, kernels                      commands of their own
"""
