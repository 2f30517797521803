// The elementary functions as a policy: `Math` on the CPU, and the base of the device's policies.
#pragma once

#include "math/elementary.h"

namespace pyvae {
inline namespace PYVAE_ISA {

struct Exact {
  static constexpr bool kBranches = false;  // compute rare cases always, so that loops vectorize

  template <class T>
  PYVAE_HD static T exp_moderate(T x) {
    return pyvae::exp_moderate(x);
  }
  template <class T>
  PYVAE_HD static T log(T x) {
    return pyvae::log(x);
  }
  template <class T>
  PYVAE_HD static T exp(T x) {
    return pyvae::exp(x);
  }
  template <class T>
  PYVAE_HD static T exp_negative(T x) {
    return pyvae::exp_negative(x);
  }
  template <class T>
  PYVAE_HD static Factored<T> exp_minus_factored(T x) {
    return pyvae::exp_minus_factored(x);
  }
  template <class T>
  PYVAE_HD static T log_unit(T p) {  // for 0 <= p <= 1
    return log(p);
  }
  template <class T>
  PYVAE_HD static T divide(T a, T b) {
    return a / b;
  }
};

}  // namespace PYVAE_ISA
}  // namespace pyvae
