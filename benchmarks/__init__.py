"""Side-by-side measurements of pyvae: `python -m benchmarks --help`.

timing.py       the clock, and the round-robin over competitors
competitors.py  what is compared: the same function of the same inputs, written four ways
cpu.py          the CPU measurements: speed, bandwidth, call overhead
accuracy.py     errors against float64
isolated.py     what needs a process of its own: import time, peak memory
rows.py         the CSV
table.py        the CSV as Markdown, with the project's targets; keeps the README's table in step
"""
