// For elements.cpp: formulas of csrc/math as nvcc compiles them, an element a call.
#include "elements.h"

#include "math/gaussian.h"
#include "math/normal.h"

#define ELEMENT(name, ...) \
  extern "C" __global__ void name##_element(Element* e) { __VA_ARGS__; }

ELEMENT(radius, write(e, pyvae::box_muller(e->bits, kAngle)))
ELEMENT(angle, write(e, pyvae::box_muller(kRadius, e->bits)))
ELEMENT(sigma, write(e, sigmas(number(e))))
ELEMENT(root, e->out[0] = e->out[1] = pyvae::sqrt(number(e)))
