// How the kernels of log densities under mixtures cut a call. It depends on the shape alone, so that sums are
// repeatable to the bit on every GPU.
//
// A call is a number of problems, each with components, rows and features of its own: one for each group of components;
// or where each feature has its own density, one for each group and feature, of one feature.
#pragma once

#include "cuda/tuning.h"
#include "operand.h"

namespace pyvae {
namespace cuda {

struct MixtureTiling {
  int64_t problems = 0, rows = 0;  // rows of each
  int64_t features = 0;            // of each row
  bool wide = false;               // a warp holds a row; else a thread does

  // Values, and gradients by z: threads that share a row, each with components of its own, a power of 2; tiles of rows.
  int lanes = 1;
  int64_t row_tiles = 0;

  // Sums by component: tiles of components (of one feature 2^shift of them), of features (if wide), and parts of the
  // rows.
  int shift = 0;
  int64_t component_tiles = 0, feature_tiles = 1, parts = 1, rows_each = 0;

  MixtureTiling() = default;
  explicit MixtureTiling(const MixtureOperands& a) {
    problems = a.groups * (a.elements ? a.features : 1);
    rows = a.groups > 0 ? a.rows / a.groups : 0;
    features = a.elements ? 1 : a.features;
    wide = features > (a.in_double ? kNarrowFeatures<double> : kNarrowFeatures<float>);
    const int64_t components = a.components;

    // Idle threads take components; and where there are too few blocks, more threads do, while few of them wait.
    const auto in_turns = [&](int64_t lanes) { return divide_up(components, lanes) * lanes; };
    const auto blocks = [&] { return problems * divide_up(rows, kThreads / lanes); };
    while (!wide && lanes < kWarp &&
           (kThreads / lanes >= 2 * rows || (blocks() < kTileBlocks && 4 * in_turns(2 * lanes) <= 5 * components)))
      lanes *= 2;
    if (wide) lanes = kWarp;
    row_tiles = divide_up(rows, kThreads / lanes);

    int64_t at_once = kWideComponents;
    if (features == 1) {
      while ((int64_t(1) << shift) < components && (2 << shift) <= kThreads) ++shift;
      at_once = 1 << shift;
    } else if (!wide) {
      const int64_t most = a.in_double ? kNarrowFeatures<double> : kNarrowFeatures<float>;
      at_once = kThreads * kOwnCells / (features <= kFewFeatures ? kFewFeatures : most);
    }
    component_tiles = divide_up(components, at_once);
    if (wide) feature_tiles = divide_up(features, kThreads * kWideFeatures);
    const int64_t tiles = problems * component_tiles * feature_tiles, most = divide_up(rows, kRowsOfPart);
    parts = tiles > 0 ? divide_up(kTileBlocks, tiles) : 1;
    parts = parts < most ? parts : most > 0 ? most : 1;
    rows_each = divide_up(divide_up(rows, parts), kRowsAtOnce) * kRowsAtOnce;
    if (rows_each > 0) parts = divide_up(rows, rows_each);
  }

  // Of a part of a problem's rows: r y and r y^2 of each component's features, and r.
  PYVAE_HD int64_t sums_each(int64_t components) const { return (2 * features + 1) * components; }
  PYVAE_HD int64_t moment_blocks() const { return problems * component_tiles * feature_tiles * parts; }

 private:
  static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

}  // namespace cuda
}  // namespace pyvae
