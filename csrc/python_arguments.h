// Reads the arguments of a plain eager call from Python, without the dispatcher's overhead.
#pragma once

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ScalarOps.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cmath>
#include <string_view>

#include "ops/codes.h"
#include "ops/dispatch.h"
#include "ops/dtypes.h"

namespace pyvae {

namespace py = pybind11;

inline bool is_runnable(c10::DeviceType type, int index) {
  const Device* const device = registered<Device>(type);
  return device && device->is_runnable(index);
}

// For a number that is not a Python float or int, but is registered as one of `kind` with the module `numbers` (NumPy's
// scalars are): returns `convert(value)`, a new reference. Returns null for anything else. True and False do not count
// as numbers.
template <PyObject* (*convert)(PyObject*)>
py::object registered_number(py::handle value, const char* kind) {
  if (value.is_none() || PyBool_Check(value.ptr()) || THPVariable_Check(value.ptr())) return {};
  static const py::object* const numbers = new py::object(py::module_::import("numbers"));  // never released, as below
  const py::object type = numbers->attr(kind);
  py::object out;
  if (PyObject_IsInstance(value.ptr(), type.ptr()) == 1) out = py::reinterpret_steal<py::object>(convert(value.ptr()));
  PyErr_Clear();
  return out;
}

// Reads arguments. `plain` becomes false at the first argument that the fast path does not accept.
struct Arguments {
  bool plain = !at::impl::torch_function_mode_enabled();

  Tensor tensor(py::handle value) {
    if (!THPVariable_CheckExact(value.ptr())) {
      plain = false;
      return Tensor();
    }
    const Tensor& tensor = THPVariable_Unpack(value.ptr());
    plain &= is_plain(tensor) && is_runnable(tensor.device().type(), tensor.device().index()) &&
             !tensor._fw_grad(0).defined();
    return tensor;
  }

  OptionalTensor optional_tensor(py::handle value) {
    return value.is_none() ? OptionalTensor() : OptionalTensor(tensor(value));
  }

  // Returns the one scale that is given and its code; code 0 if none is. Takes all forms of `Scales`, in their order.
  template <class... Forms>
  std::pair<OptionalTensor, int64_t> scale(Forms... given) {
    static_assert(sizeof...(Forms) == Scales::kCount, "an entry takes each form of the scale: add the new one to it");
    const py::handle forms[] = {given...};
    std::pair<OptionalTensor, int64_t> found = {std::nullopt, 0};
    for (int64_t kind = 0; kind < Scales::kCount; ++kind) {
      if (forms[kind].is_none()) continue;
      plain &= !found.first;
      found = {tensor(forms[kind]), kind};
    }
    return found;
  }

  template <class Names>
  int64_t code(py::handle value, const Names& names) {
    if (PyUnicode_Check(value.ptr())) {
      Py_ssize_t size = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
      for (const char* const& name : names) {
        if (text && std::string_view(text, size_t(size)) == name) return &name - names.begin();
      }
      PyErr_Clear();
    }
    plain = false;
    return -1;
  }

  // A likelihood's name, or an object with parameters, whose attribute `resolved` is (name, parameters, log_library).
  // If log_library is a number, it is expanded to one number per row of recon.
  struct Likelihood {
    int64_t code = -1;
    Parameters parameters;
    OptionalTensor log_library;
  };
  Likelihood likelihood(py::handle value, const Tensor& recon) {
    if (PyUnicode_Check(value.ptr())) return {code(value, kLikelihoodNames), {}, {}};
    const py::object parts = py::reinterpret_steal<py::object>(PyObject_GetAttrString(value.ptr(), "resolved"));
    const auto part = [&](int i) { return py::handle(PyTuple_GET_ITEM(parts.ptr(), i)); };
    if (!parts || !PyTuple_Check(parts.ptr()) || PyTuple_GET_SIZE(parts.ptr()) != 3 || !PyTuple_Check(part(1).ptr())) {
      PyErr_Clear();
      plain = false;
      return {};
    }
    Likelihood out{code(part(0), kLikelihoodNames), {}, parameter(part(2), recon, true)};
    for (const py::handle own : py::reinterpret_borrow<py::tuple>(part(1))) {
      out.parameters.push_back(parameter(own, recon, false));
    }
    return out;
  }

  // A tensor; or a number, which becomes a tensor on recon's device: one number per row, or a scalar for all rows.
  OptionalTensor parameter(py::handle value, const Tensor& recon, bool per_row) {
    if (value.is_none()) return std::nullopt;
    const std::optional<double> constant = number(value);
    if (!constant) return tensor(value);
    plain &= recon.defined() && recon.dim() > 0;
    if (!plain) return std::nullopt;  // under a dispatch mode the new tensor might have no memory
    if (!per_row && recon.is_cpu()) return c10::scalar_to_tensor(*constant);  // the fast path
    const c10::DimVector sizes(size_t(per_row), per_row ? recon.size(0) : 0);
    return at::full(sizes, *constant, recon.options().dtype(at::kDouble));
  }

  // The value as a double, if it is a number.
  std::optional<double> number(py::handle value) {
    if (PyFloat_CheckExact(value.ptr())) return PyFloat_AS_DOUBLE(value.ptr());
    if (!PyLong_CheckExact(value.ptr())) {
      const py::object own = registered_number<PyNumber_Float>(value, "Real");
      return own ? std::optional(PyFloat_AS_DOUBLE(own.ptr())) : std::nullopt;
    }
    const double out = PyLong_AsDouble(value.ptr());
    if (out == -1.0 && PyErr_Occurred()) PyErr_Clear(), plain = false;
    return out;
  }

  // A factor for recon's elements: a tensor, or a number, which becomes a scalar tensor.
  OptionalTensor factor(py::handle value) {
    if (value.is_none()) return std::nullopt;
    const std::optional<double> constant = number(value);
    return constant ? c10::scalar_to_tensor(*constant) : tensor(value);
  }

  // Converts registered integers to a Python int; returns anything else unchanged.
  py::object integer(py::handle value) {
    py::object own;
    if (!PyLong_CheckExact(value.ptr())) own = registered_number<PyNumber_Index>(value, "Integral");
    return own ? own : py::reinterpret_borrow<py::object>(value);
  }

  int64_t row_offset(py::handle given) {
    const py::object value = integer(given);
    int overflow = 0;
    const int64_t out = PyLong_CheckExact(value.ptr()) ? PyLong_AsLongLongAndOverflow(value.ptr(), &overflow) : -1;
    plain &= out >= 0 && overflow == 0;
    return out;
  }

  // The number of samples, 1 or more; None: 0.
  int64_t samples(py::handle given) {
    if (given.is_none()) return 0;
    const int64_t out = row_offset(given);  // the same checks apply
    plain &= out > 0 && out < int64_t(1) << 31;
    return out;
  }

  // The seed's 64 bits as an int64 tensor of one element, if a seed is given.
  OptionalTensor seed(py::handle given) {
    if (given.is_none()) return std::nullopt;
    const py::object value = integer(given);
    if (!PyLong_CheckExact(value.ptr())) return tensor(value);
    int overflow = 0;
    uint64_t bits = uint64_t(PyLong_AsLongLongAndOverflow(value.ptr(), &overflow));
    if (overflow > 0) bits = PyLong_AsUnsignedLongLong(value.ptr());
    if (overflow < 0 || PyErr_Occurred()) PyErr_Clear(), plain = false;
    if (!plain) return std::nullopt;  // under a dispatch mode the new tensor might have no memory
    Tensor out = at::empty({1}, at::kLong);
    *out.mutable_data_ptr<int64_t>() = int64_t(bits);
    return out;
  }

  // (low, high), finite numbers. Either may be None, which means no bound.
  std::pair<OptionalTensor, OptionalTensor> range(py::handle value) {
    if (value.is_none()) return {};
    plain &= PyTuple_CheckExact(value.ptr()) && PyTuple_GET_SIZE(value.ptr()) == 2;
    if (!plain) return {};
    std::optional<double> bounds[2];
    for (int i = 0; i < 2; ++i) {
      const py::handle bound = PyTuple_GET_ITEM(value.ptr(), i);
      if (bound.is_none()) continue;
      bounds[i] = number(bound);
      plain &= bounds[i] && std::isfinite(*bounds[i]);
    }
    plain &= !bounds[0] || !bounds[1] || *bounds[0] <= *bounds[1];
    if (!plain) return {};  // under a dispatch mode the new tensors might have no memory
    const auto scalar = [](std::optional<double> bound) {
      return bound ? OptionalTensor(c10::scalar_to_tensor(*bound)) : std::nullopt;
    };
    return {scalar(bounds[0]), scalar(bounds[1])};
  }

  // (mean, scale), tensors or numbers. Numbers become tensors on mu's device.
  std::pair<OptionalTensor, OptionalTensor> prior(py::handle value, const Tensor& mu, const Tensor& scale) {
    if (value.is_none()) return {};
    plain &= PyTuple_CheckExact(value.ptr()) && PyTuple_GET_SIZE(value.ptr()) == 2;
    const auto part = [&](int i) -> OptionalTensor {
      if (!plain) return std::nullopt;  // under a dispatch mode the new tensor might have no memory
      const py::handle given = PyTuple_GET_ITEM(value.ptr(), i);
      const std::optional<double> constant = number(given);
      return constant ? at::full({}, *constant, mu.options().dtype(compute_type(mu, scale))) : tensor(given);
    };
    OptionalTensor mean = part(0);
    return {std::move(mean), part(1)};
  }

  std::optional<at::Generator> generator(py::handle value, const Tensor& on) {
    if (value.is_none()) return std::nullopt;
    plain &= THPGenerator_Check(value.ptr());
    if (!plain) return std::nullopt;
    const at::Generator out = THPGenerator_Unwrap(value.ptr());
    plain &= out.device().type() == on.device().type() &&
             (!out.device().has_index() || out.device().index() == on.device().index() || on.is_cpu());
    return out;
  }
};

}  // namespace pyvae
