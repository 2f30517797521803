// What the autograd functions share.
#pragma once

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <functional>
#include <string>

#include "ops/operators.h"

namespace pyvae {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradient of an operator through the reference (pyvae/reference.py), set by bindings.cpp. It is asked for what the
// kernels do not have: second derivatives, and gradients by target, weight, pos_weight, beta and eps.
struct ReferenceCall {
  std::string name;            // of the operator
  variable_list inputs;        // its tensors, in the order of its schema; undefined where absent
  std::vector<int64_t> codes;  // its integers, in that order
  double beta = 1;
  variable_list upstream;    // gradients of its outputs; undefined: 0
  std::vector<bool> wanted;  // which inputs need one
};
using ReferenceGradient = std::function<variable_list(const ReferenceCall&)>;
ReferenceGradient& reference_gradient();

inline OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
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

// The batch size as a divisor; symbolic while a compiler traces with dynamic shapes.
inline at::Scalar batch_size(const Tensor& tensor) { return at::Scalar(c10::SymFloat(tensor.sym_size(0))); }

// Whether an upstream gradient on the CPU, float or double, is the number 1.
inline bool is_one(const Tensor& scalar) {
  return scalar.dim() == 0 && (scalar.scalar_type() == at::kFloat ? *scalar.const_data_ptr<float>() == 1.0f
                                                                  : *scalar.const_data_ptr<double>() == 1.0);
}

// A typed handle to a registered operator, looked up once.
template <class Signature>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Which of the operator's tensors need a gradient. The engine counts only those that were there.
inline std::vector<bool> wanted_gradients(const AutogradContext* ctx, const variable_list& inputs) {
  std::vector<bool> wanted;
  size_t edge = 0;
  for (const Tensor& input : inputs) wanted.push_back(input.defined() && ctx->needs_input_grad(edge++));
  return wanted;
}

}  // namespace pyvae
