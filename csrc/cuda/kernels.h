// The CUDA kernels' interface: raw pointers, plain structs and launch functions; no torch, and none of CUDA's own
// types.
#pragma once

#include "cuda/mixture_tiling.h"
#include "cuda/tiling.h"
#include "operand.h"

namespace pyvae {
namespace cuda {

// How the elements of a call, numbered row by row, are cut among blocks. It depends on the shape alone, so that sums
// are repeatable to the bit on every GPU. A block takes either one of `parts` parts of a row,
// or spans of several short rows.
struct Partition {
  int64_t rows = 1, features = 0;
  int64_t parts = 1, length = 0;  // of each row
  int rows_per_span = 0;          // > 0: short rows
  int spans_per_block = 1;
  int64_t blocks = 0;

  Partition() = default;
  Partition(int64_t rows, int64_t features) : rows(rows), features(features) {
    if (rows > 1 && features <= kSpan / 2) {
      const int64_t fit = kSpan / (features > 0 ? features : 1), even = divide_up(rows, kSpread);
      rows_per_span = int(even < fit ? even : fit);
      const int64_t spans = divide_up(rows, rows_per_span);
      spans_per_block = int(within(spans / kGoodBlocks, 1, kMostSpans));
      blocks = divide_up(spans, spans_per_block);
    } else if (rows > 0) {
      const int64_t total = rows * features, even = within(divide_up(total, kGoodBlocks), kSmallPart, kLargePart);
      const int64_t least = divide_up(total, kMostParts), most = even > least ? even : least;
      parts = within(divide_up(features, most), 1, features);  // evenly long; and where there is nothing, 0 is a result
      length = divide_up(divide_up(features, parts), kVector) * kVector;
      if (length > 0) parts = divide_up(features, length);
      blocks = rows * parts;
    }
  }

 private:
  static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
  static int64_t within(int64_t x, int64_t low, int64_t high) {
    return x > high && high > low ? high : x < low ? low : x;
  }
};

// One number per row, or one for all rows (stride 0), on the device.
struct PerRow {
  const void* data = nullptr;  // [rows], strided; null: absent, counts as 0. Float or double
  bool in_double = false;
  int64_t stride = 0;
};

// A result: one number per row, or one. Float or double.
struct Result {
  void* data = nullptr;  // [rows] or []; null: not wanted
  bool in_double = false;
};

// What the sums of several blocks pass through.
struct Workspace {
  double* partials = nullptr;  // [blocks of the call]
  unsigned* ticket = nullptr;  // [1], 0 before and after every call
};

// The seed of the noise: a number, or on the device, or under capture what a graph's replay draws.
struct Seed {
  uint64_t value = 0;
  const int64_t* given = nullptr;            // [1]; null: `value`, or drawn from
  const int64_t* captured_seed = nullptr;    // [1], the generator's, which a replay reads anew
  const int64_t* captured_offset = nullptr;  // [1], to which `value` is added
  int64_t* out = nullptr;                    // [1], written if it was drawn: backward draws the same noise again
};

struct LatentForward : LatentOperands {
  Partition partition;   // of the sums: by rows, or all in one row
  Result kl;             // reduced by the partition, times kl_factor
  double kl_factor = 1;  // 1, or 1 / rows for the mean
  Seed seed;
  Workspace workspace;
};

struct LatentBackward : LatentOperands {
  Partition partition;  // all in one row: nothing is summed
  PerRow grad_kl;       // [rows]; absent: 0
  Seed seed;
};

// Where the objective's KL comes from.
enum class Divergence : int8_t {
  kNone,       // it is 0
  kGiven,      // one number per row
  kPosterior,  // mu and scale, as a second segment of the same launch (one row only)
};

struct DivergenceSegment {
  Divergence source = Divergence::kNone;
  PerRow given;              // [rows]
  LatentOperands posterior;  // mu and scale alone
  Partition partition;       // of the segment
};

// What becomes of the sums: loss = likelihood + beta KL, and both terms.
struct LossTerms {
  double beta = 1;
  PerRow beta_tensor;  // [1]; absent: 1
  Result loss, recon_term, kl_term;
  double mean = 1;  // a factor of the terms: 1, or 1 / batch size
};

// Decoder side, forward, of likelihoods without parameters that are none of counts: the loss, its terms, and factor *
// d likelihood / d recon.
struct Objective : ObjectiveOperands, LossTerms {
  Partition partition;  // by rows, or all in one row
  DivergenceSegment divergence;
  Workspace workspace;
};

// Whether rows have upstream gradients of different bits, which one launch finds out for the next one. Its first
// `blocks` compare all with the first row's, and a warp leaves one number.
struct Comparison {
  int* differ = nullptr;  // [blocks, kThreads / kWarp], 0: none that the warp has seen; null: not asked for
  int64_t rows = 0, blocks = 0;
  unsigned* tickets = nullptr;  // [slices], set to 0 for what the next launch counts
  int64_t slices = 0;
};

// Decoder side by tiles, both ways: counts, and whatever has parameters. Up to three launches, `stage` says which:
//   prepare      of a softmax, log sum exp of recon over each part of a row; and what the likelihood prepares of its
//                first parameter
//   tiles        evaluates each element once; gradients are written but for a softmax's, whose derivatives by the log
//                mean wait in `waiting`; sums are left in parts
//   finish       adds up the parts, and takes the derivatives through the softmax
// After a Comparison, the tiles alone: sums per column that are there are multiplied by the one upstream gradient; or,
// where rows have different ones, made again, and the block that finishes last of a slice adds up its parts.
enum class Stage : int8_t { kPrepare, kTiles, kFinish };
// A parameter's gradient: of each element, or a sum per column or per row.
enum class ParameterSum : int8_t { kElements, kPerColumn, kPerRow };

struct TiledObjective : ObjectiveOperands, LossTerms {
  Stage stage = Stage::kTiles;
  Tiling tiling, finish_tiling;
  NormalizerTiling normalizer_tiling;
  PerRow log_library;                 // [rows]
  PerRow upstream;                    // [rows], a factor of the gradients; absent: 1
  PerRow divergence, divergence_sum;  // [rows], and if the results are one number [1]
  bool by_row = false;                // the results: one for each row
  bool with_terms = false;            // they are wanted

  // Scratch, in T = float or double.
  void* normalizers = nullptr;  // T[rows, normalizer_tiling.parts]; null: no softmax
  void* prepared = nullptr;     // T[kFirst, features] of the first parameter, if all rows have the same one; or null
  Operand waiting;              // T[rows, features]; recon's gradient itself where that is of type T
  int row_kinds = 2;            // sums of a part of a row: values, derivatives by the log mean, by parameters
  void* row_parts = nullptr;    // T[rows, tiling.parts(), row_kinds]
  void* totals = nullptr;       // double[2, tiling.blocks()]: of values and of the KL

  ParameterSum parameter_sums[kMaxParameters] = {};
  void* column_parts[kMaxParameters] = {};  // T[tiling.groups, features]; null: not wanted
  // Results of `finish`; absent: not wanted.
  Result column_sums[kMaxParameters];  // [features]
  Result row_sums[kMaxParameters];     // [rows]
  Result library_gradient;             // [rows]

  Comparison comparison;  // of `upstream`
};
constexpr int kRowSums = 2 + kMaxParameters;  // the most row_kinds

// A gradient as plain memory, to be multiplied by one number, or by one for each row.
struct Dense {
  void* data = nullptr;  // [count]; null: absent
  bool in_double = false;
  int64_t count = 0, each = 1;  // elements of all rows, and of each
};
constexpr int kMaxOthers = kMaxParameters + 1;  // gradients beside recon's: by the parameters and log_library

// Decoder side, backward: upstream = grad_loss + grad_recon, per row or one for all.
//   gradient: computed anew as factor * upstream * d likelihood / d recon; or multiplied by upstream (`rescale`)
//   to_kl = mean * (beta grad_loss + grad_kl), or that times the KL's derivatives by mu and scale, to the gradients in
//   objective.divergence.posterior
struct ObjectiveBackward {
  Objective objective;       // its inputs and gradients; results are not wanted. No blocks: nor is a gradient
  bool rescale = false;      // the gradient is there, and is only multiplied
  bool done_if_one = false;  // the gradient is there: nothing is to be done where upstream is 1
  Dense others[kMaxOthers];  // multiplied, too, if `rescale`
  Comparison comparison;     // made, if `rescale`
  PerRow grad_loss, grad_recon, grad_kl;
  Result to_kl;       // [batch], written; absent: not wanted
  int64_t batch = 0;  // 1 where all rows have one gradient
};

// Log densities under a mixture, up to five launches:
//   prepare   of each component what rows need of it
//   values    of each row, and the sums that backward needs
//   by z      the gradient
//   moments   the sums over parts of the rows, of which the components' gradients are made
//   finish    adds up the parts
enum class MixtureStage : int8_t { kPrepare, kValues, kByZ, kMoments, kFinish };

struct Mixture : MixtureOperands {
  MixtureStage stage = MixtureStage::kPrepare;
  MixtureTiling tiling;

  // Scratch. Of each problem (mixture_tiling.h), in T = float or double:
  void* cells = nullptr;   // T[problems, features, components, 2], or if wide T[problems, components, features, 2]
  void* peaks = nullptr;   // T[problems, components]
  double* sums = nullptr;  // [problems, parts, sums_each()]
};

// The density of a posterior: a Gaussian for each of `groups` samples of the batch, one component without a weight.
struct PosteriorDensity : MixtureOperands {
  bool backward = false;
  Partition partition;  // of the values: by rows; or of the gradients, of [groups, features]: nothing is summed
  Workspace workspace;
};

// Each launches one kernel on a stream (cudaStream_t) and returns nullptr, or what CUDA says is wrong.
const char* launch(const LatentForward& call, void* stream);
const char* launch(const LatentBackward& call, void* stream);
const char* launch(const Objective& call, void* stream);
const char* launch(const ObjectiveBackward& call, void* stream);
const char* launch(const TiledObjective& call, void* stream);
const char* launch(const Mixture& call, void* stream);
const char* launch(const PosteriorDensity& call, void* stream);

// Whether the kernels have machine code for the current device.
bool has_image();

// The first of kTickets zeroed numbers in the current device's memory, for Workspace::ticket; null if there is none.
constexpr int kTickets = 1 << 16;
unsigned* tickets();

}  // namespace cuda
}  // namespace pyvae
