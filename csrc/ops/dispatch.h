// How a call reaches its kernel: directly through the device's function, or through the dispatcher.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>

#include <algorithm>

#include "ops/arguments.h"
#include "ops/device.h"

namespace pyvae {

// Whether a call on `tensor` would reach a device's kernel with only autograd and autocast in between: no mode, no
// subclass, no tracer, no transform. Only then may a call bypass the dispatcher, or write in place.
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
inline bool is_plain(const Parameters& parameters) {
  return std::all_of(parameters.begin(), parameters.end(), [](const OptionalTensor& p) { return is_plain(p); });
}
template <class NoTensor>
bool is_plain(const NoTensor&) {
  return true;
}

// The functions of a device that may be called directly with these arguments, or null.
template <class Functions, class Arguments>
const Functions* direct(const Tensor& tensor, const Arguments& a) {
  const bool plain = std::apply([](const auto&... fields) { return (is_plain(fields) && ...); }, a.fields());
  return plain ? registered<Functions>(tensor.device().type()) : nullptr;
}

// A typed handle to the registered operator that corresponds to a function of a struct; and a call of it.
template <class Function>
auto find_operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<typename Flat<Function>::Signature>();
}
template <class Operator, class Arguments, class... More>
auto call(const Operator& op, const Arguments& a, const More&... more) {
  return std::apply([&](const auto&... fields) { return op.call(to_passed(fields)..., more...); }, a.fields());
}

// Runs an operator. With `functions`: the device's function, recorded under the operator's name in a profile. Without:
// through the dispatcher, so that tracers, modes and subclasses see the call.
template <auto function, class Functions, class Arguments, class... More>
auto run(const char* name, const Functions* functions, const Arguments& a, const More&... more) {
  if (functions) {
    RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>());
    return (functions->*function)(a, more...);
  }
  using Function = std::remove_reference_t<decltype(std::declval<Functions>().*function)>;
  static const auto op = find_operator<Function>(name);
  return call(op, a, more...);
}

}  // namespace pyvae
