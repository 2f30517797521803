#include "ops/broadcast.h"

#include <ATen/Dispatch.h>
#include <ATen/ExpandUtils.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>

namespace pyvae {

namespace {

// The additions that a thread should get at least, and the columns that it takes at a time: few enough for their sums
// to stay in the cache while it reads the rows.
constexpr int64_t kGrain = 1 << 15, kColumns = 1024;

// Sums adjacent elements in eight lanes: with one lane each addition would wait for the one before.
template <class In>
double sum_run(const In* in, int64_t count) {  // [count]
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += double(in[i + lane]);
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) lanes[lane] += double(in[i]);
  double total = 0;
  for (const double lane : lanes) total += lane;
  return total;
}

// out[o, i] = sum over r of in[o, r, i], from the first row to the last. Threads share the results, not the sums.
template <class In>
void sum_middle(const In* in, int64_t outer, int64_t rows, int64_t inner, double* out) {  // [outer, rows, inner]
  if (inner == 1) {
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, rows));
    at::parallel_for(0, outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) out[o] = sum_run(in + o * rows, rows);
    });
    return;
  }
  const int64_t blocks = (inner + kColumns - 1) / kColumns;
  const int64_t work = rows * std::min(inner, kColumns),
                grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work));
  at::parallel_for(0, outer * blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t o = task / blocks, first = task % blocks * kColumns, n = std::min(kColumns, inner - first);
      double* const sums = out + o * inner + first;           // [n]
      const In* const block = in + o * rows * inner + first;  // [rows, n], row stride `inner`
      std::fill(sums, sums + n, 0.0);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < n; ++i) sums[i] += double(block[r * inner + i]);
      }
    }
  });
}

// Sums dimensions [begin, end) of a contiguous tensor; they are kept, with size 1.
at::Tensor sum_dims(const at::Tensor& in, int64_t begin, int64_t end) {
  at::DimVector sizes(in.sizes());
  const auto product = [&sizes](int64_t from, int64_t to) {
    return std::accumulate(sizes.begin() + from, sizes.begin() + to, int64_t(1), std::multiplies<>());
  };
  const int64_t outer = product(0, begin), rows = product(begin, end), inner = product(end, in.dim());
  std::fill(sizes.begin() + begin, sizes.begin() + end, 1);
  at::Tensor out = at::empty(sizes, at::kDouble);
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "pyvae", [&] {
    sum_middle(in.const_data_ptr<scalar_t>(), outer, rows, inner, out.mutable_data_ptr<double>());
  });
  return out;
}

}  // namespace

at::Tensor sum_to(const at::Tensor& full, at::IntArrayRef sizes, at::ScalarType type) {
  if (!full.is_cpu()) return at::sum_to(full, sizes).to(type);
  const int64_t dims = full.dim(), leading = dims - int64_t(sizes.size());
  const auto summed = [&](int64_t d) { return d < leading || (sizes[d - leading] == 1 && full.size(d) != 1); };
  at::Tensor out = full.contiguous();
  for (int64_t end = dims; end > 0; --end) {
    if (!summed(end - 1)) continue;
    int64_t begin = end - 1;
    while (begin > 0 && summed(begin - 1)) --begin;  // sum adjacent dimensions together
    out = sum_dims(out, begin, end);
    end = begin + 1;
  }
  return out.to(type).reshape(sizes);
}

}  // namespace pyvae
