// An operator's arguments: one struct per side, passed from the entry to the device. Its fields have the order of the
// Python signature. Only this file converts between the structs and the dispatcher's flat argument lists.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <optional>
#include <tuple>

#include "math/terms.h"

namespace pyvae {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Parameters = c10::SmallVector<OptionalTensor, kMaxParameters>;  // a likelihood's, in its functor's order

inline const OptionalTensor kAbsent;
inline const Parameters kNoParameters;

// Encoder side.
struct LatentArguments {
  const Tensor& mu;                      // [B, ...]
  const Tensor& scale;                   // [B, ...]
  int64_t scale_kind;                    // Scales (math/gaussian.h)
  const OptionalTensor& low = kAbsent;   // [], on the CPU: bounds of scale, a logvar. Tensors, because a
  const OptionalTensor& high = kAbsent;  // compiler treats an operator's numbers as constants
  const OptionalTensor& eps = kAbsent;   // the caller's noise, shaped like z
  const OptionalTensor& seed = kAbsent;  // [1] int64, of the drawn noise
  c10::SymInt row_offset = 0;
  const OptionalTensor& prior_mean = kAbsent;   // broadcastable to mu; absent: N(0, I)
  const OptionalTensor& prior_scale = kAbsent;  // broadcastable to mu, in the form of scale
  c10::SymInt samples = 0;                      // per row: z is [samples, B, ...]. 0: one, in mu's shape

  bool is_clamped() const { return low || high; }

  auto fields() const {
    return std::tie(mu, scale, scale_kind, low, high, eps, seed, row_offset, prior_mean, prior_scale, samples);
  }
  static constexpr const char* kSchema =
      "Tensor mu, Tensor scale, int scale_kind, Tensor? low, Tensor? high, Tensor? eps, Tensor? seed, "
      "SymInt row_offset, Tensor? prior_mean, Tensor? prior_scale, SymInt samples";
};

// Decoder side: the likelihood alone.
struct LikelihoodArguments {
  const Tensor& recon;                // [B, ...]
  const Tensor& target;               // [B, ...], or one of the two is [B, D]; or [B / S, ...], for each of S samples
  int64_t likelihood;                 // Likelihoods (math/likelihood.h)
  const Parameters& parameters;       // the likelihood's own, broadcastable to recon
  const OptionalTensor& log_library;  // [B] or [B, 1]: the mean is e^log_library softmax(recon)
  const OptionalTensor& weight;       // broadcastable to recon
  const OptionalTensor& pos_weight;   // broadcastable to recon

  auto fields() const { return std::tie(recon, target, likelihood, parameters, log_library, weight, pos_weight); }
  static constexpr const char* kSchema =
      "Tensor recon, Tensor target, int likelihood, Tensor?[] parameters, Tensor? log_library, Tensor? weight, "
      "Tensor? pos_weight";
};

// Decoder side with the KL, which is computed from mu and scale, or given as `kl`, or 0.
struct ElboArguments {
  const Tensor& recon;
  const Tensor& target;
  const OptionalTensor& mu;     // [B, ...]
  const OptionalTensor& scale;  // [B, ...]
  int64_t scale_kind;           // Scales
  const OptionalTensor& kl;     // [B]
  int64_t likelihood;
  const Parameters& parameters;
  const OptionalTensor& log_library;
  double beta;
  const OptionalTensor& beta_tensor;  // [], multiplies beta
  const OptionalTensor& weight;
  const OptionalTensor& pos_weight;
  int64_t reduction;  // Reduction (codes.h)

  operator LikelihoodArguments() const {
    return {.recon = recon,
            .target = target,
            .likelihood = likelihood,
            .parameters = parameters,
            .log_library = log_library,
            .weight = weight,
            .pos_weight = pos_weight};
  }
  // Only if mu and scale are given.
  LatentArguments posterior() const { return {.mu = *mu, .scale = *scale, .scale_kind = scale_kind}; }

  auto fields() const {
    return std::tie(recon, target, mu, scale, scale_kind, kl, likelihood, parameters, log_library, beta, beta_tensor,
                    weight, pos_weight, reduction);
  }
  static constexpr const char* kSchema =
      "Tensor recon, Tensor target, Tensor? mu, Tensor? scale, int scale_kind, Tensor? kl, int likelihood, "
      "Tensor?[] parameters, Tensor? log_library, float beta, Tensor? beta_tensor, Tensor? weight, "
      "Tensor? pos_weight, int reduction";
};

// Log densities under mixtures of diagonal Gaussians over vectors.
struct MixtureArguments {
  const Tensor& z;                         // [..., B, L]
  const Tensor& mean;                      // [K, L], shared by all samples, or [B, K, L]
  const Tensor& scale;                     // likewise
  int64_t scale_kind;                      // Scales (math/gaussian.h)
  const OptionalTensor& logits = kAbsent;  // [K] or [B, K]; absent: all weights are equal
  const OptionalTensor& low = kAbsent;     // [], on the CPU: bounds of scale, a logvar
  const OptionalTensor& high = kAbsent;

  bool is_clamped() const { return low || high; }

  auto fields() const { return std::tie(z, mean, scale, scale_kind, logits, low, high); }
  static constexpr const char* kSchema =
      "Tensor z, Tensor mean, Tensor scale, int scale_kind, Tensor? logits, Tensor? low, Tensor? high";
};

// ---- flat: f(const Arguments&, more...) as the dispatcher calls it, f(fields..., more...) ----

// A field as the dispatcher passes it.
template <class Field>
struct PassedAs {
  using Type =
      std::conditional_t<std::is_arithmetic_v<Field> || std::is_same_v<Field, c10::SymInt>, Field, const Field&>;
};
template <>
struct PassedAs<Parameters> {
  using Type = const c10::List<OptionalTensor>&;
};

template <class Field>
const Field& to_passed(const Field& field) {
  return field;
}
inline c10::List<OptionalTensor> to_passed(const Parameters& parameters) {
  return c10::List<OptionalTensor>(at::ArrayRef<OptionalTensor>(parameters));
}

template <class Field>
const Field& from_passed(const Field& field) {
  return field;
}
inline Parameters from_passed(const c10::List<OptionalTensor>& list) {
  Parameters parameters;
  for (size_t k = 0; k < list.size(); ++k) parameters.push_back(list.get(k));
  return parameters;
}

template <class Function, class Fields>
struct FlatOf;
template <class Result, class Arguments, class... More, class... Fields>
struct FlatOf<Result (*)(const Arguments&, More...), std::tuple<const Fields&...>> {
  using Signature = Result(typename PassedAs<Fields>::Type..., More...);

  template <Result (*function)(const Arguments&, More...)>
  static Result call(typename PassedAs<Fields>::Type... fields, More... more) {
    return function(Arguments{from_passed(fields)...}, more...);
  }
};

template <class Function>
struct Flat;
template <class Result, class Arguments, class... More>
struct Flat<Result (*)(const Arguments&, More...)>
    : FlatOf<Result (*)(const Arguments&, More...), decltype(std::declval<const Arguments&>().fields())> {};

// Converts a function of a struct to a function of its fields, for torch::Library::impl.
template <auto function>
constexpr auto flat() {
  return &Flat<decltype(function)>::template call<function>;
}

}  // namespace pyvae
