// What the autograd functions share: which way a call goes to its kernels, and the way to the reference.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <string>

#include "ops/device.h"

namespace pyvae {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// ---- the differentiable operators
// ------------------------------------------------------------------------------------ Arguments are legal: whoever
// calls has asked refuse.h.

// (z, kl); kl [B], or empty where it is not wanted.
std::tuple<Tensor, Tensor> reparameterize(const LatentArguments& a, bool with_kl);
// The same with a seed that the device draws from `generator` (none: its own).
std::tuple<Tensor, Tensor> reparameterize_drawn(const LatentArguments& a, const std::optional<at::Generator>& generator,
                                                bool with_kl);
Tensor kl_divergence(const LatentArguments& a, int64_t reduction);
// (loss, reconstruction term, KL term); without `with_terms` the loss alone.
variable_list elbo(const ElboArguments& a, bool with_terms);

// ---- the way to the kernels
// ------------------------------------------------------------------------------------------

// Whether a call on `tensor` would reach a device's kernel with nothing in between but autograd and autocast: no mode,
// no subclass, no tracer, no transform. Only then may a kernel be called around the dispatcher, or write in place.
inline bool is_plain(const Tensor& tensor) {
  const c10::impl::LocalDispatchKeySet local = c10::impl::tls_local_dispatch_key_set();
  const c10::DispatchKeySet keys = (tensor.key_set() | local.included_) - local.excluded_;
  const c10::DispatchKeySet transparent = c10::autograd_dispatch_keyset_with_ADInplaceOrView |
                                          c10::autocast_dispatch_keyset |
                                          c10::DispatchKeySet(c10::DispatchKey::BackendSelect);
  const c10::DispatchKey first = (keys - transparent).highestPriorityTypeId();
  return first == c10::DispatchKey::CPU || first == c10::DispatchKey::CUDA;
}

inline bool is_plain(const OptionalTensor& tensor) { return !tensor || is_plain(*tensor); }
template <class NoTensor>
bool is_plain(const NoTensor&) {
  return true;
}

// The device whose functions may be called directly with these arguments, or null.
template <class Arguments>
const Device* direct_device(const Tensor& tensor, const Arguments& a) {
  const bool plain = std::apply([](const auto&... fields) { return (is_plain(fields) && ...); }, a.fields());
  return plain ? device_of(tensor.device().type()) : nullptr;
}

// A typed handle to the registered operator of a struct's function, and its call.
template <class Function>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<typename Flat<Function>::Signature>();
}
template <class Operator, class Arguments, class... More>
auto call(const Operator& op, const Arguments& a, const More&... more) {
  return std::apply([&](const auto&... fields) { return op.call(fields..., more...); }, a.fields());
}

// Runs an operator: the device's function, under the operator's name in a profile, or else the way of the dispatcher,
// which tracers, modes and subclasses follow.
template <auto function, class Arguments, class... More>
auto run(const char* name, const Device* device, const Arguments& a, const More&... more) {
  if (device) {
    RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>());
    return (device->*function)(a, more...);
  }
  using Function = std::remove_reference_t<decltype(std::declval<Device>().*function)>;
  static const auto op = find_operator<Function>(name);
  return call(op, a, more...);
}

// ---- the reference
// ---------------------------------------------------------------------------------------------------

// The gradient of an operator through pyvae.reference, set by bindings.cpp. It is asked for what the kernels do not
// have: second derivatives, and gradients by target, weight, pos_weight, beta and eps.
struct ReferenceCall {
  std::string name;             // of the operator
  variable_list inputs;         // its tensors, as saved; undefined where absent
  std::vector<int64_t> codes;   // its integers, as saved
  std::vector<double> numbers;  // those that are no integers
  variable_list upstream;       // gradients of its outputs; undefined: 0
  std::vector<bool> wanted;     // which inputs need one
};
using ReferenceGradient = std::function<variable_list(const ReferenceCall&)>;
ReferenceGradient& reference_gradient();

// ---- tensors that may be absent
// --------------------------------------------------------------------------------------

inline OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}
inline Tensor value_or_undefined(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }

// An alias with a version of its own, of what the backward pass does not read: it may be written to in between.
inline Tensor unwatched(const Tensor& tensor) {
  return tensor.defined() && is_plain(tensor) ? tensor.variable_data() : tensor;
}

inline bool needs_gradient(std::initializer_list<const Tensor*> tensors,
                           std::initializer_list<const OptionalTensor*> optional_tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor* t : tensors) {
    if (t->requires_grad()) return true;
  }
  for (const OptionalTensor* t : optional_tensors) {
    if (*t && (*t)->requires_grad()) return true;
  }
  return false;
}

// Which of the operator's tensors need a gradient. The engine counts only those that were there.
inline std::vector<bool> wanted_gradients(const AutogradContext* ctx, const variable_list& inputs) {
  std::vector<bool> wanted;
  size_t edge = 0;
  for (const Tensor& input : inputs) wanted.push_back(input.defined() && ctx->needs_input_grad(edge++));
  return wanted;
}

// Whether forward-mode differentiation comes with one of them, which the kernels would drop.
inline bool has_tangent(const variable_list& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const Tensor& t) { return t.defined() && t._fw_grad(/*level=*/0).defined(); });
}

// The batch size as a divisor; symbolic while a compiler traces with dynamic shapes.
inline at::Scalar batch_size(const Tensor& tensor) { return at::Scalar(c10::SymFloat(tensor.sym_size(0))); }

// Whether an upstream gradient on the CPU, float or double, is the number 1.
inline bool is_one(const Tensor& scalar) {
  return scalar.dim() == 0 && (scalar.scalar_type() == at::kFloat ? *scalar.const_data_ptr<float>() == 1.0f
                                                                  : *scalar.const_data_ptr<double>() == 1.0);
}

}  // namespace pyvae
