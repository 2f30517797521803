// Chooses the kernels for this machine, once, at first use.
#include <cstdlib>
#include <cstring>

#include "cpu/kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#  include <cpuid.h>
#endif

namespace pyvae {

// One set per compilation of kernels.cpp.
namespace avx512 {
extern const cpu::InstructionSet kKernels;
}
namespace avx2 {
extern const cpu::InstructionSet kKernels;
}
namespace baseline {
extern const cpu::InstructionSet kKernels;
}

namespace cpu {
namespace {

bool has_fma() {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_cpu_supports("fma");
#else
  return true;  // part of the baseline of every other architecture that torch supports
#endif
}

#ifdef PYVAE_HAVE_AVX2
// Read from cpuid, since clang's __builtin_cpu_supports has no name for it. "avx2" already checks that the system saves
// the registers, which F16C uses as well.
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

const InstructionSet* choose() {
  if (!has_fma()) return nullptr;
  const char* capability = std::getenv("ATEN_CPU_CAPABILITY");
  const auto asks_for = [capability](const char* name) { return capability && !std::strcmp(capability, name); };
  [[maybe_unused]] const bool avx2 = !asks_for("default"), avx512 = avx2 && !asks_for("avx2");
#ifdef PYVAE_HAVE_AVX512
  if (avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    return &avx512::kKernels;
  }
#endif
#ifdef PYVAE_HAVE_AVX2
  if (avx2 && __builtin_cpu_supports("avx2") && has_f16c()) return &avx2::kKernels;
#endif
  return &baseline::kKernels;
}

}  // namespace

const InstructionSet* instruction_set() {
  static const InstructionSet* const chosen = choose();
  return chosen;
}

}  // namespace cpu
}  // namespace pyvae
