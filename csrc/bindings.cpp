// The pybind11 module: the eager entry points, without the dispatcher's Python overhead.
//
// An entry takes exactly what a plain eager call passes and answers None to everything else (a subclass, a mode, a
// transform, a device without kernels, a wrong argument). Python then checks the arguments in words, and goes through
// torch.ops or the reference.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <string_view>

#include "cpu/kernels.h"
#include "ops/autograd.h"

#ifdef PYVAE_HAVE_CUDA
#  include "ops/cuda/runtime.h"
#endif

namespace py = pybind11;

namespace pyvae {
namespace {

bool is_runnable([[maybe_unused]] int cuda_device) {
#ifdef PYVAE_HAVE_CUDA
  return cuda::is_runnable(cuda_device);
#else
  return false;
#endif
}

// Whether the kernel on this tensor's device draws a call's seed itself.
bool draws_on_device([[maybe_unused]] const Tensor& tensor) {
#ifdef PYVAE_HAVE_CUDA
  return cuda::draws_on_device(tensor);
#else
  return false;
#endif
}

bool has_kernels(const Tensor& tensor) {
  return tensor.is_cpu() ? cpu::table() != nullptr : is_runnable(tensor.device().index());
}

// Reads arguments; `plain` turns false at the first that is not what it should be.
struct Arguments {
  bool plain = !at::impl::torch_function_mode_enabled();

  Tensor tensor(py::handle value) {
    if (!THPVariable_CheckExact(value.ptr())) {
      plain = false;
      return Tensor();
    }
    const Tensor& tensor = THPVariable_Unpack(value.ptr());
    plain &= is_plain(tensor) && has_kernels(tensor) && !tensor._fw_grad(0).defined();
    return tensor;
  }

  OptionalTensor optional_tensor(py::handle value) {
    return value.is_none() ? OptionalTensor() : OptionalTensor(tensor(value));
  }

  // The one scale that is given, and its code; none: -1.
  std::pair<OptionalTensor, int64_t> scale(std::initializer_list<py::handle> forms) {
    std::pair<OptionalTensor, int64_t> found = {std::nullopt, -1};
    int64_t kind = 0;
    for (const py::handle form : forms) {
      if (!form.is_none()) {
        plain &= !found.first;
        found = {tensor(form), kind};
      }
      ++kind;
    }
    return found;
  }

  int64_t code(py::handle value, const char* const* names, int64_t count) {
    if (PyUnicode_Check(value.ptr())) {
      Py_ssize_t size = 0;
      const char* text = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
      for (int64_t i = 0; text && i < count; ++i) {
        if (std::string_view(text, size_t(size)) == names[i]) return i;
      }
      PyErr_Clear();
    }
    plain = false;
    return -1;
  }

  // A number, if that is what it is.
  std::optional<double> number(py::handle value) {
    if (PyFloat_CheckExact(value.ptr())) return PyFloat_AS_DOUBLE(value.ptr());
    if (!PyLong_CheckExact(value.ptr())) return std::nullopt;
    const double out = PyLong_AsDouble(value.ptr());
    if (out == -1.0 && PyErr_Occurred()) PyErr_Clear(), plain = false;
    return out;
  }

  int64_t integer(py::handle value) {
    int overflow = 0;
    const int64_t out = PyLong_CheckExact(value.ptr()) ? PyLong_AsLongLongAndOverflow(value.ptr(), &overflow) : -1;
    plain &= out >= 0 && overflow == 0;
    return out;
  }

  // The seed as an int64 tensor of one element: the caller's, or a new one from the generator.
  Tensor seed(py::handle seed, py::handle generator) {
    if (THPVariable_CheckExact(seed.ptr())) {
      plain &= generator.is_none();
      return tensor(seed);
    }
    uint64_t bits = 0;
    if (PyLong_CheckExact(seed.ptr()) && generator.is_none()) {
      int overflow = 0;
      bits = uint64_t(PyLong_AsLongLongAndOverflow(seed.ptr(), &overflow));
      if (overflow > 0) bits = PyLong_AsUnsignedLongLong(seed.ptr());
      if (overflow < 0 || PyErr_Occurred()) PyErr_Clear(), plain = false;
    } else if (seed.is_none() && (generator.is_none() || THPGenerator_Check(generator.ptr()))) {
      const std::optional<at::Generator> given =
          generator.is_none() ? std::nullopt : std::optional(THPGenerator_Unwrap(generator.ptr()));
      plain &= !given || given->device().is_cpu();
      if (!plain) return Tensor();
      auto* cpu_generator =
          at::get_generator_or_default<at::CPUGeneratorImpl>(given, at::detail::getDefaultCPUGenerator());
      const std::lock_guard<std::mutex> lock(cpu_generator->mutex_);
      // As torch.randint(-2**63, 2**63 - 1) draws it, so that the reference makes the same noise.
      bits = cpu_generator->random64() % ~uint64_t(0) + (uint64_t(1) << 63);
    } else {
      plain = false;
    }
    if (!plain) return Tensor();
    const Tensor out = at::empty({1}, at::kLong);
    *out.mutable_data_ptr<int64_t>() = int64_t(bits);
    return out;
  }
};

py::object wrap(const Tensor& tensor) { return py::reinterpret_steal<py::object>(THPVariable_Wrap(tensor)); }

py::object sample(const std::tuple<Tensor, Tensor>& out, bool with_kl) {
  if (!with_kl) return wrap(std::get<0>(out));
  return py::make_tuple(wrap(std::get<0>(out)), wrap(std::get<1>(out)));
}

py::object reparameterize_entry(py::handle mu, py::handle logvar, py::handle std, py::handle logstd, py::handle eps,
                                py::handle seed, py::handle row_offset, py::handle generator, bool with_kl) {
  Arguments in;
  const Tensor mean = in.tensor(mu);
  const auto [scale, kind] = in.scale({logvar, std, logstd});
  const OptionalTensor noise = in.optional_tensor(eps);
  const int64_t offset = in.integer(row_offset);
  if (!in.plain || !scale || refuse_latent(mean, *scale, noise, std::nullopt, kind)) return py::none();
  if (noise && !(seed.is_none() && generator.is_none() && offset == 0)) return py::none();
  if (!noise && seed.is_none() && draws_on_device(mean)) {
    const std::optional<at::Generator> source =
        THPGenerator_Check(generator.ptr()) ? std::optional(THPGenerator_Unwrap(generator.ptr())) : std::nullopt;
    if (source ? source->device() != mean.device() : !generator.is_none()) return py::none();
    std::tuple<Tensor, Tensor> out;
    {
      const py::gil_scoped_release release;
      out = reparameterize_drawn(mean, *scale, source, kind, offset, with_kl);
    }
    return sample(out, with_kl);
  }
  const OptionalTensor key = noise ? OptionalTensor() : OptionalTensor(in.seed(seed, generator));
  if (!in.plain || (key && refuse_latent(mean, *scale, noise, key, kind))) return py::none();
  if (THPVariable_Check(seed.ptr()) && key->device() != mean.device()) return py::none();
  std::tuple<Tensor, Tensor> out;
  {
    const py::gil_scoped_release release;
    out = reparameterize(mean, *scale, noise, key, kind, offset, with_kl);
  }
  return sample(out, with_kl);
}

py::object kl_divergence_entry(py::handle mu, py::handle logvar, py::handle std, py::handle logstd,
                               py::handle reduction) {
  Arguments in;
  const Tensor mean = in.tensor(mu);
  const auto [scale, kind] = in.scale({logvar, std, logstd});
  const int64_t reduce = in.code(reduction, kReductionNames, kReductions);
  if (!in.plain || !scale || refuse_latent(mean, *scale, std::nullopt, std::nullopt, kind)) return py::none();
  Tensor out;
  {
    const py::gil_scoped_release release;
    out = kl_divergence(mean, *scale, kind, reduce);
  }
  return wrap(out);
}

py::object elbo_entry(py::handle recon, py::handle target, py::handle mu, py::handle logvar, py::handle std,
                      py::handle logstd, py::handle kl, py::handle likelihood, py::handle beta, py::handle weight,
                      py::handle pos_weight, py::handle reduction, bool terms) {
  Arguments in;
  const Tensor output = in.tensor(recon), data = in.tensor(target);
  const OptionalTensor mean = in.optional_tensor(mu);
  const auto [scale, kind] = in.scale({logvar, std, logstd});
  const OptionalTensor divergence = in.optional_tensor(kl), factor = in.optional_tensor(weight);
  const std::optional<double> beta_number = in.number(beta), positive_number = in.number(pos_weight);
  const OptionalTensor beta_tensor = beta_number ? OptionalTensor() : OptionalTensor(in.tensor(beta));
  const OptionalTensor positive = positive_number ? OptionalTensor(at::scalar_tensor(*positive_number, at::kDouble))
                                                  : in.optional_tensor(pos_weight);
  const int64_t like = in.code(likelihood, kLikelihoodNames, kLikelihoods);
  const int64_t reduce = in.code(reduction, kReductionNames, kReductions);
  if (!in.plain || refuse_objective(output, data, mean, scale, divergence, factor, positive, beta_tensor, like,
                                    kind < 0 ? 0 : kind, reduce)) {
    return py::none();
  }
  std::tuple<Tensor, Tensor, Tensor> out;
  {
    const py::gil_scoped_release release;
    out = elbo(output, data, mean, scale, divergence, factor, positive, beta_tensor, beta_number.value_or(1.0), like,
               kind < 0 ? 0 : kind, reduce);
  }
  const auto& [loss, recon_term, kl_term] = out;
  return terms ? py::make_tuple(wrap(loss), wrap(recon_term), wrap(kl_term)) : wrap(loss);
}

// Calls `function(name, inputs, codes, beta, upstream, wanted)` of pyvae/_gradient.py.
void set_reference_gradient(const py::function& function) {
  // Never released: a backward pass may still run while the interpreter shuts down.
  static py::object* const held = new py::object();
  *held = function;
  reference_gradient() = [](const ReferenceCall& call) {
    const py::gil_scoped_acquire acquire;
    const auto list = [](const variable_list& tensors) {
      py::list out;
      for (const Tensor& t : tensors) out.append(t.defined() ? wrap(t) : py::none());
      return out;
    };
    const py::list gradients =
        (*held)(call.name, list(call.inputs), call.codes, call.beta, list(call.upstream), call.wanted);
    variable_list out;
    for (const py::handle gradient : gradients) {
      out.push_back(gradient.is_none() ? Tensor() : THPVariable_Unpack(gradient.ptr()));
    }
    return out;
  };
}

}  // namespace
}  // namespace pyvae

PYBIND11_MODULE(_C, m) {
  m.def("reparameterize", &pyvae::reparameterize_entry);
  m.def("kl_divergence", &pyvae::kl_divergence_entry);
  m.def("elbo", &pyvae::elbo_entry);
  m.def("set_reference_gradient", &pyvae::set_reference_gradient);
  m.def("cuda_runnable", &pyvae::is_runnable);
  m.def("isa", [] { return pyvae::cpu::table() ? pyvae::cpu::table()->isa : "none"; });
}
