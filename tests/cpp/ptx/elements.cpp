// elements NAME FIRST LAST STEP: compares nvcc's PTX of a formula with the host's, to the bit, for the bits FIRST,
// FIRST + STEP, ... up to LAST. Prints how many there were and how many differ.
#include "elements.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

extern "C" void radius_element(void*), angle_element(void*), sigma_element(void*), root_element(void*);

namespace {

struct Formula {
  const char* name;
  void (*ptx)(void* parameters);
  void (*host)(Element*);
};
const Formula kFormulas[] = {
    {"radius", radius_element, [](Element* e) { write(e, pyvae::box_muller(e->bits, kAngle)); }},
    {"angle", angle_element, [](Element* e) { write(e, pyvae::box_muller(kRadius, e->bits)); }},
    {"sigma", sigma_element, [](Element* e) { write(e, sigmas(number(e))); }},
    {"root", root_element, [](Element* e) { e->out[0] = e->out[1] = std::sqrt(number(e)); }},
};

bool same(float a, float b) {
  return pyvae::bit_cast<uint32_t>(a) == pyvae::bit_cast<uint32_t>(b) || (a != a && b != b);
}

}  // namespace

int main(int, char** words) {
  const uint64_t first = std::strtoull(words[2], nullptr, 0), last = std::strtoull(words[3], nullptr, 0);
  const uint64_t step = std::strtoull(words[4], nullptr, 0);
  for (const Formula& formula : kFormulas) {
    if (formula.name != std::string(words[1])) continue;
    uint64_t compared = 0, differ = 0;
    for (uint64_t bits = first; bits <= last; bits += step, ++compared) {
      Element got{uint32_t(bits), {}}, want = got, *at = &got;
      formula.ptx(&at);
      formula.host(&want);
      if (same(got.out[0], want.out[0]) && same(got.out[1], want.out[1])) continue;
      if (++differ > 3) continue;
      std::printf("%s of %#x: %a and %a, want %a and %a\n", formula.name, want.bits, got.out[0], got.out[1],
                  want.out[0], want.out[1]);
    }
    std::printf("%lu compared, %lu differ\n", (unsigned long)compared, (unsigned long)differ);
    return differ != 0;
  }
  return 2;
}
