// Calls of the log density's kernels, for sanitize.cpp and bits.cpp: shapes around tiles, runs of features, terms and
// strips, by rows and by features, in heap blocks of exactly the bytes that a kernel may touch.
#pragma once

#include <functional>
#include <vector>

#include "cpu/kernels.h"
#include "math/gaussian.h"

namespace pyvae {

struct MixtureCase {
  int64_t groups, group_rows, components, features;
  int variant;  // a bit each: elements; weights, one of them 0; clamped; the gradients of z alone
};

constexpr MixtureCase kMixtures[] = {
    {1, 1, 1, 1, 0},     {1, 31, 3, 2, 3},   {1, 33, 17, 9, 2}, {1, 40, 16, 65, 6},  {1, 513, 5, 3, 2},
    {1, 1100, 2, 11, 3}, {2, 9, 33, 1, 7},   {3, 8, 2, 130, 2}, {3, 7, 5, 12, 2},    {4, 1, 9, 600, 6},
    {2, 3, 4, 5, 3},     {5, 2, 1, 700, 4},  {3, 520, 1, 7, 5}, {1, 70, 20, 10, 10}, {2, 40, 6, 4, 11},
    {1, 20, 3, 0, 2},    {9, 3, 1, 5, 0},    {130, 2, 1, 4, 5}, {3, 4, 1, 1030, 1},  {2, 600, 1, 3, 8},
    {2, 1030, 3, 17, 2}, {1, 64, 40, 64, 0},
};

// Everything that both directions write, one after the other; `by_unit`: from the last unit to the first, one by one.
template <class T>
std::vector<double> run_mixture(const cpu::Kernels& kernels, const MixtureCase& c, int scale_kind,
                                const std::function<double(int64_t)>& number, bool by_unit) {
  const int64_t rows = c.groups * c.group_rows, cells = c.components * c.features;
  const bool elements = c.variant & 1, weighted = c.variant & 2;
  const int64_t values_count = rows * (elements ? c.features : 1);
  const auto filled = [&](int64_t n, bool positive) {
    std::vector<T> out(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      const double x = number(i);
      out[size_t(i)] = T(positive && x <= 0 ? 0.25 - x : x);
    }
    return out;
  };
  const bool positive = scale_kind == kCode<StandardDeviation, Scales>;
  const std::vector<T> z = filled(rows * c.features, false), mean = filled(c.groups * cells, false);
  const std::vector<T> scale = filled(c.groups * cells, positive), upstream = filled(values_count, false);
  std::vector<double> log_weight(size_t(c.groups * c.components), -1.5);
  if (c.components > 1) log_weight[0] = -__builtin_inf();
  std::vector<T> values(static_cast<size_t>(values_count)), top(values), sum(values), grad_z(z);
  std::vector<T> grad_mean(mean), grad_scale(mean);
  std::vector<double> grad_weight(log_weight);

  cpu::Mixture call{};
  call.groups = c.groups, call.rows = rows, call.components = c.components, call.features = c.features;
  call.in_double = sizeof(T) == 8, call.elements = elements, call.scale_kind = scale_kind;
  call.z = z.data(), call.mean = mean.data(), call.scale = scale.data();
  if (weighted) call.log_weight = log_weight.data();
  if ((c.variant & 4) && scale_kind == kCode<LogVariance, Scales>) call.low = -1, call.high = 1.5;
  call.values = values.data();
  if (c.components > 1) call.top = top.data(), call.sum = sum.data();

  const auto run = [&](bool backward, const auto& kernel) {
    const int64_t units = cpu::MixtureUnits(call, backward).count;
    std::vector<char> scratch(static_cast<size_t>(kernels.mixture_scratch(call, backward)));
    if (!by_unit) kernel(0, units, scratch.data());
    for (int64_t unit = by_unit ? units : 0; unit-- > 0;) kernel(unit, unit + 1, scratch.data());
  };
  run(false, [&](int64_t begin, int64_t end, void* room) { kernels.mixture_forward(call, begin, end, room); });

  call.upstream = upstream.data(), call.grad_z = grad_z.data();
  const cpu::MixtureUnits units(call, /*backward=*/true);
  std::vector<double> sums(static_cast<size_t>(units.count * call.sums_each()));
  const bool to_mixture = !(c.variant & 8);
  if (to_mixture) {
    call.grad_mean = grad_mean.data(), call.grad_scale = grad_scale.data(), call.grad_weight = grad_weight.data();
    if (units.parts > 1) call.sums = sums.data();
  }
  run(true, [&](int64_t begin, int64_t end, void* room) { kernels.mixture_backward(call, begin, end, room); });
  if (call.sums) kernels.mixture_finish(call, 0, call.groups * ((cells + cpu::kChunk - 1) / cpu::kChunk));

  std::vector<double> out;
  for (const std::vector<T>* written : {&values, &top, &sum, &grad_z, &grad_mean, &grad_scale})
    out.insert(out.end(), written->begin(), written->end());
  out.insert(out.end(), grad_weight.begin(), grad_weight.end());
  return out;
}

}  // namespace pyvae
