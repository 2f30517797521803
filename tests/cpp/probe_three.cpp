// A likelihood with three parameters that exists only here, through the CPU's one skeleton: nothing of it has to
// change. For tests/test_three_parameters.py.

#include <stddef.h>

#include <vector>

#include "cpu/objective.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// value 1/2 a d^2 + b d + c, d = recon - t;  by recon a d + b;  by a 1/2 d^2;  by b d;  by c 1
struct Parabola : Traits {
  static constexpr int kParameters = 3;
  template <class Math, class T>
  PYVAE_HD static Terms<T, 3> evaluate(T recon, T t, const T (&own)[3]) {
    const T d = recon - t, half_square = T(0.5) * d * d;
    return {fma(own[0], half_square, fma(own[1], d, own[2])), fma(own[0], d, own[1]), {half_square, d, T(1)}};
  }
};

// recon, target, by_recon [rows, features]; a, by_a [features]; b, by_b [rows]; c, by_c, value [1]. Gradients times 2.
template <class T>
void parabola(int64_t rows, int64_t features, const T* recon, const T* target, const T* a, const T* b, const T* c,
              T* value, T* by_recon, T* by_a, T* by_b, T* by_c) {
  Objective call{};
  call.shape = {rows, features, 2, {rows, features}};
  const auto operand = [](const T* data, int64_t row_stride, int64_t stride, bool contiguous) {
    Operand out;
    out.data = const_cast<T*>(data), out.type = kTypeCode<T>, out.contiguous = contiguous;
    out.strides[0] = row_stride, out.strides[1] = stride;
    return out;
  };
  call.recon = operand(recon, features, 1, true), call.target = operand(target, features, 1, true);
  call.gradient = operand(by_recon, features, 1, true);
  call.parameters[0] = operand(a, 0, 1, false);
  call.parameters[1] = operand(b, 1, 0, false);
  call.parameters[2] = operand(c, 0, 0, false);
  call.factor = 2;

  const Chunks chunks(call.shape);
  std::vector<double> values(size_t(chunks.count)), of_b(size_t(chunks.partials())), of_c(size_t(chunks.count));
  std::vector<T> of_a(size_t(Units(chunks, false, true).count * features));
  call.value.chunks = values.data(), call.column_sums[0] = of_a.data();
  call.by_parameter[1].rows = of_b.data(), call.by_parameter[2].chunks = of_c.data();
  static constexpr Loops<T> kLoops = loops_of<Parabola, T>();
  ObjectiveKernel<T>(call, kLoops, nullptr).run(0, call.units().count);

  double total = 0, of_all = 0;
  for (size_t i = 0; i < values.size(); ++i) total += values[i], of_all += of_c[i];
  *value = T(total), *by_c = T(of_all);
  for (int64_t column = 0; column < features; ++column) {
    double sum = 0;
    for (size_t i = size_t(column); i < of_a.size(); i += size_t(features)) sum += double(of_a[i]);
    by_a[column] = T(sum);
  }
  for (int64_t row = 0; row < rows; ++row) {
    double sum = 0;
    for (int64_t part = 0; part < chunks.per_row; ++part) sum += of_b[size_t(row * chunks.per_row + part)];
    by_b[row] = T(sum);
  }
}

}  // namespace PYVAE_ISA
}  // namespace pyvae

#define PARABOLA(T)                                                                                         \
  extern "C" void parabola_##T(int64_t rows, int64_t features, const T* recon, const T* target, const T* a, \
                               const T* b, const T* c, T* value, T* by_recon, T* by_a, T* by_b, T* by_c) {  \
    pyvae::parabola(rows, features, recon, target, a, b, c, value, by_recon, by_a, by_b, by_c);             \
  }
PARABOLA(float)
PARABOLA(double)
