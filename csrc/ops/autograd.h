// Shared by the autograd functions: the gradient through the reference, and helpers for tensors that may be absent.
#pragma once

#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>

#include <functional>
#include <string>
#include <vector>

#include "ops/dispatch.h"

namespace pyvae {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradient of an operator through pyvae.reference; bindings.cpp sets it. It is used for what the kernels do not
// compute: second derivatives, and gradients by target, weight, pos_weight, beta and eps.
struct ReferenceCall {
  std::string name;              // the operator's name
  variable_list inputs;          // its tensors, as saved; undefined: absent
  std::vector<int64_t> codes;    // its integers, as saved
  std::vector<double> numbers;   // its other numbers
  variable_list upstream;        // gradients of its outputs; undefined: 0
  std::vector<bool> needs_grad;  // which inputs need one
};
using ReferenceGradient = std::function<variable_list(const ReferenceCall&)>;
ReferenceGradient& reference_gradient();

inline OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}
inline Tensor value_or_undefined(const OptionalTensor& tensor) { return tensor.value_or(Tensor()); }

// Shares data but not the version counter, so that in-place writes before backward do not raise. Only for tensors that
// backward does not read.
inline Tensor without_version_check(const Tensor& tensor) {
  return tensor.defined() && is_plain(tensor) ? tensor.variable_data() : tensor;
}

inline bool requires_grad(const Tensor& tensor) { return tensor.requires_grad(); }
inline bool requires_grad(const OptionalTensor& tensor) { return tensor && tensor->requires_grad(); }
inline bool requires_grad(const Parameters& parameters) {
  return std::any_of(parameters.begin(), parameters.end(), [](const OptionalTensor& p) { return requires_grad(p); });
}
template <class NoTensor>
bool requires_grad(const NoTensor&) {
  return false;
}

// Whether a call needs a backward function.
template <class Arguments>
bool needs_gradient(const Arguments& a) {
  return at::GradMode::is_enabled() &&
         std::apply([](const auto&... fields) { return (requires_grad(fields) || ...); }, a.fields());
}

// Which of the operator's tensors need a gradient. The engine counts only the tensors that were present.
inline std::vector<bool> needs_input_grad(const AutogradContext* ctx, const variable_list& inputs) {
  std::vector<bool> out;
  size_t edge = 0;
  for (const Tensor& input : inputs) out.push_back(input.defined() && ctx->needs_input_grad(edge++));
  return out;
}

// Whether one of them has a forward-mode tangent, which the kernels would drop.
inline bool has_tangent(const variable_list& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const Tensor& t) { return t.defined() && t._fw_grad(/*level=*/0).defined(); });
}

// Whether vmap batches one of them (is_grads_batched, say). vmap has no rule for operators that return lists.
inline bool is_batched(const variable_list& tensors) {
  constexpr c10::DispatchKeySet kBatched({c10::DispatchKey::Batched, c10::DispatchKey::FuncTorchBatched});
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const Tensor& t) { return t.defined() && t.key_set().has_any(kBatched); });
}

// The batch size as a divisor; symbolic while a compiler traces with dynamic shapes.
inline at::Scalar batch_size(const Tensor& tensor) { return at::Scalar(c10::SymFloat(tensor.sym_size(0))); }

}  // namespace pyvae
