// An operator's arguments: one struct a side, from the entry to the device. The dispatcher's flat lists are made of the
// structs' fields, here and nowhere else.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace pyvae {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline const OptionalTensor kAbsent;

// Encoder side.
struct LatentArguments {
  const Tensor& mu;            // [B, ...]
  const Tensor& scale;         // [B, ...]
  const OptionalTensor& eps;   // [B, ...], the caller's noise
  const OptionalTensor& seed;  // [1] int64, of our own
  int64_t scale_kind;          // Scales (math/gaussian.h)
  c10::SymInt row_offset;
  const OptionalTensor& prior_mean = kAbsent;   // broadcastable to mu; without them N(0, I)
  const OptionalTensor& prior_scale = kAbsent;  // broadcastable to mu, in the form of scale
  const OptionalTensor& low = kAbsent;          // [], on the CPU: scale is clamped to them, a logvar. Tensors, since
  const OptionalTensor& high = kAbsent;         // a compiler takes an operator's numbers for constants

  bool is_clamped() const { return low || high; }

  auto fields() const {
    return std::tie(mu, scale, eps, seed, scale_kind, row_offset, prior_mean, prior_scale, low, high);
  }
  static constexpr const char* kSchema =
      "Tensor mu, Tensor scale, Tensor? eps, Tensor? seed, int scale_kind, SymInt row_offset, Tensor? prior_mean, "
      "Tensor? prior_scale, Tensor? low, Tensor? high";
};

// Decoder side: the likelihood alone.
struct LikelihoodArguments {
  const Tensor& recon;               // [B, ...]
  const Tensor& target;              // [B, ...], or one of the two is [B, D]
  const OptionalTensor& weight;      // broadcastable to recon
  const OptionalTensor& pos_weight;  // broadcastable to recon
  int64_t likelihood;                // Likelihoods (math/likelihood.h)
  const OptionalTensor& parameter;   // its own, broadcastable to recon
  const OptionalTensor& second_parameter;
  const OptionalTensor& log_library;  // [B] or [B, 1]: the mean is e^it softmax(recon)

  auto fields() const {
    return std::tie(recon, target, weight, pos_weight, likelihood, parameter, second_parameter, log_library);
  }
  static constexpr const char* kSchema =
      "Tensor recon, Tensor target, Tensor? weight, Tensor? pos_weight, int likelihood, Tensor? parameter, "
      "Tensor? second_parameter, Tensor? log_library";
};

// And with its KL, which comes from mu and scale, or from `kl`, or is 0.
struct ElboArguments : LikelihoodArguments {
  const OptionalTensor& mu;           // [B, ...]
  const OptionalTensor& scale;        // [B, ...]
  int64_t scale_kind;                 // Scales
  const OptionalTensor& kl;           // [B]
  const OptionalTensor& beta_tensor;  // [], times beta
  double beta;
  int64_t reduction;  // Reduction (codes.h)

  auto fields() const {
    return std::tuple_cat(LikelihoodArguments::fields(),
                          std::tie(mu, scale, scale_kind, kl, beta_tensor, beta, reduction));
  }
  static constexpr const char* kSchema =
      "Tensor? mu, Tensor? scale, int scale_kind, Tensor? kl, Tensor? beta_tensor, float beta, int reduction";  // more
};

// ---- flat: f(const Arguments&, more...) as the dispatcher calls it, f(fields..., more...)
// -----------------------------

template <class Field>
using Passed =
    std::conditional_t<std::is_arithmetic_v<Field> || std::is_same_v<Field, c10::SymInt>, Field, const Field&>;

template <class Function, class Fields>
struct FlatOf;
template <class Result, class Arguments, class... More, class... Fields>
struct FlatOf<Result (*)(const Arguments&, More...), std::tuple<const Fields&...>> {
  using Signature = Result(Passed<Fields>..., More...);

  template <Result (*function)(const Arguments&, More...)>
  static Result call(Passed<Fields>... fields, More... more) {
    return function(Arguments{fields...}, more...);
  }
};

template <class Function>
struct Flat;
template <class Result, class Arguments, class... More>
struct Flat<Result (*)(const Arguments&, More...)>
    : FlatOf<Result (*)(const Arguments&, More...), decltype(std::declval<const Arguments&>().fields())> {};

// A struct's function as one over its fields, for torch::Library::impl.
template <auto function>
constexpr auto flat() {
  return &Flat<decltype(function)>::template call<function>;
}

}  // namespace pyvae
