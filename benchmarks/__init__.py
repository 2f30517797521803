"""Side-by-side measurements of pyvae: `python -m benchmarks --help`.

cases.py     what is compared: the same function of the same inputs, written in several ways
timing.py    competitors in turns, within a budget of time
device.py    the CPU and the GPU: clock, compiler, memory, graphs, profiler
rows.py      what is measured: the CSV, and where it was measured

speed.py     speed, bandwidth and call overhead, on either device
accuracy.py  errors against float64
isolated.py  what needs a process of its own: import time, peak memory, huge pages
steps.py     whole training steps on a GPU

cpu.py       what a run measures on the CPU
cuda.py      what a run measures on a GPU
report.py    tables and targets, and those of the README
plots.py     a GPU's CSV as pictures
"""
