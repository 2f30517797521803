"""Side-by-side measurements of pyvae: `python -m benchmarks --help`.

competitors.py  what is compared: the same function of the same inputs, written four ways
accuracy.py     errors against float64
rows.py         the CSV

timing.py       the CPU's clock, and the round-robin over competitors
cpu.py          the CPU measurements: speed, bandwidth, call overhead
isolated.py     what needs a process of its own: import time, peak memory

device.py       the GPU: its clock, graphs, memory and profiler
rounds.py       the round-robin on a GPU, within a budget of time
launches.py     launches and waits in a profiler's trace
cuda.py         the GPU measurements, and how much of each
contests.py     speed and bandwidth on a GPU
steps.py        whole training steps on a GPU

judge.py        targets, and how rows are judged by them
table.py        the CPU's CSV as Markdown; keeps the README's tables in step
gpu_table.py    a GPU's CSV as Markdown
plot.py         a GPU's CSV as pictures
"""
