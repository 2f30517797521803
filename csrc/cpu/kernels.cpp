// All CPU kernels for one instruction set: compiled once for each, with PYVAE_ISA=avx512, avx2 or baseline.
#include "cpu/kernels.h"

#include "cpu/latent.h"
#include "cpu/mixture_kernels.h"
#include "cpu/objective.h"

#define PYVAE_STRING_(x) #x
#define PYVAE_STRING(x) PYVAE_STRING_(x)

namespace pyvae {
inline namespace PYVAE_ISA {

// Referred to by dispatch.cpp.
extern const cpu::InstructionSet kKernels;
const cpu::InstructionSet kKernels = {
    PYVAE_STRING(PYVAE_ISA),
    {latent_forward<float>, latent_backward<float>, objective<float>, objective_scratch<float>, mixture_forward<float>,
     mixture_backward<float>, mixture_finish<float>, mixture_scratch<float>},
    {latent_forward<double>, latent_backward<double>, objective<double>, objective_scratch<double>,
     mixture_forward<double>, mixture_backward<double>, mixture_finish<double>, mixture_scratch<double>},
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
