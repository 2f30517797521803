// The pybind11 module: the eager entry points, without the dispatcher's Python overhead.
//
// An entry accepts exactly what a plain eager call passes. It returns None for everything else (a subclass, a mode, a
// transform, a device without kernels, a wrong argument). Python then checks the arguments, with full error messages,
// and calls torch.ops or the reference.
#include "cpu/kernels.h"
#include "ops/autograd.h"
#include "ops/latent/autograd.h"
#include "ops/latent/checks.h"
#include "ops/mixture/autograd.h"
#include "ops/mixture/checks.h"
#include "ops/mixture/functions.h"
#include "ops/objective/autograd.h"
#include "ops/objective/checks.h"
#include "python_arguments.h"

namespace pyvae {
namespace {

py::object wrap(const Tensor& tensor) { return py::reinterpret_steal<py::object>(THPVariable_Wrap(tensor)); }

// Only logvar can have a range, even one without bounds.
bool fits(py::handle logvar_range, int64_t kind) {
  return logvar_range.is_none() || kind == kCode<LogVariance, Scales>;
}

py::object reparameterize_entry(bool with_kl, py::handle mu, py::handle logvar, py::handle std, py::handle logstd,
                                py::handle rho, py::handle logvar_range, py::handle eps, py::handle seed,
                                py::handle row_offset, py::handle generator, py::handle samples, py::handle prior) {
  Arguments in;
  const Tensor mean = in.tensor(mu);
  const auto [scale, kind] = in.scale(logvar, std, logstd, rho);
  const OptionalTensor noise = in.optional_tensor(eps), given = in.seed(seed);
  const int64_t offset = in.row_offset(row_offset), count = in.samples(samples);
  const auto [low, high] = in.range(logvar_range);
  if (!in.plain || !scale || !fits(logvar_range, kind)) return py::none();
  const auto source = in.generator(generator, mean);
  const auto [prior_mean, prior_scale] = in.prior(prior, mean, *scale);
  const LatentArguments a{.mu = mean,
                          .scale = *scale,
                          .scale_kind = kind,
                          .low = low,
                          .high = high,
                          .eps = noise,
                          .seed = given,
                          .row_offset = offset,
                          .prior_mean = prior_mean,
                          .prior_scale = prior_scale,
                          .samples = count};
  if (!in.plain || find_error(a)) return py::none();
  if ((given && source) || (noise && (given || source || offset != 0))) return py::none();
  if (given && THPVariable_Check(seed.ptr()) && given->device() != mean.device()) return py::none();
  const bool drawn = !noise && !given;
  if (drawn && !registered<Device>(mean.device().type())->draws_seeds) return py::none();
  std::tuple<Tensor, Tensor> out;
  {
    const py::gil_scoped_release release;
    out = drawn ? reparameterize_drawn(a, source, with_kl) : reparameterize(a, with_kl);
  }
  if (!with_kl) return wrap(std::get<0>(out));
  return py::make_tuple(wrap(std::get<0>(out)), wrap(std::get<1>(out)));
}

py::object kl_divergence_entry(py::handle mu, py::handle logvar, py::handle std, py::handle logstd, py::handle rho,
                               py::handle logvar_range, py::handle prior, py::handle reduction) {
  Arguments in;
  const Tensor mean = in.tensor(mu);
  const auto [scale, kind] = in.scale(logvar, std, logstd, rho);
  const int64_t reduce = in.code(reduction, kDivergenceReductionNames);
  const auto [low, high] = in.range(logvar_range);
  if (!in.plain || !scale || !fits(logvar_range, kind)) return py::none();
  const auto [prior_mean, prior_scale] = in.prior(prior, mean, *scale);
  const LatentArguments a{.mu = mean,
                          .scale = *scale,
                          .scale_kind = kind,
                          .low = low,
                          .high = high,
                          .prior_mean = prior_mean,
                          .prior_scale = prior_scale};
  if (!in.plain || find_error(a)) return py::none();
  Tensor out;
  {
    const py::gil_scoped_release release;
    out = kl_divergence(a, reduce);
  }
  return wrap(out);
}

// Checks the arguments and computes the log density. `shape`: the result's shape if elements are not summed.
py::object log_prob(const Arguments& in, const MixtureArguments& a, int64_t reduction, at::IntArrayRef shape) {
  if (!in.plain || find_error(a) || !registered<MixtureFunctions>(a.z.device().type())) return py::none();
  const bool elements = reduction != 0;
  Tensor out;
  {
    const py::gil_scoped_release release;
    out = mixture_log_prob(a, elements);
    if (elements && out.sizes() != shape) out = out.reshape(shape);
  }
  return wrap(out);
}

// Each sample of the batch is a mixture of one component over all of its features.
py::object gaussian_log_prob_entry(py::handle z, py::handle mu, py::handle logvar, py::handle std, py::handle logstd,
                                   py::handle rho, py::handle logvar_range, py::handle reduction) {
  Arguments in;
  const Tensor at = in.tensor(z), mean = in.tensor(mu);
  const auto [scale, kind] = in.scale(logvar, std, logstd, rho);
  const int64_t reduce = in.code(reduction, kDensityReductionNames);
  const auto [low, high] = in.range(logvar_range);
  if (!in.plain || !scale || !fits(logvar_range, kind)) return py::none();
  const int64_t dims = mean.dim(), samples = at.dim() - dims;
  if (dims == 0 || samples < 0 || at.sizes().slice(size_t(samples)) != mean.sizes()) return py::none();
  if (scale->sizes() != mean.sizes()) return py::none();
  const int64_t rows = mean.size(0), features = c10::multiply_integers(mean.sizes().slice(1));
  c10::DimVector sizes(at.sizes().slice(0, size_t(samples)));
  sizes.append({rows, features});
  const Tensor flat = dims == 2 ? at : at.reshape(sizes), flat_mean = mean.reshape({rows, 1, features}),
               flat_scale = scale->reshape({rows, 1, features});
  const MixtureArguments a{
      .z = flat, .mean = flat_mean, .scale = flat_scale, .scale_kind = kind, .low = low, .high = high};
  return log_prob(in, a, reduce, at.sizes());
}

py::object mixture_log_prob_entry(py::handle z, py::handle mean, py::handle logvar, py::handle std, py::handle logstd,
                                  py::handle rho, py::handle logits, py::handle reduction) {
  Arguments in;
  const Tensor at = in.tensor(z), means = in.tensor(mean);
  const auto [scale, kind] = in.scale(logvar, std, logstd, rho);
  const OptionalTensor weights = in.optional_tensor(logits);
  const int64_t reduce = in.code(reduction, kDensityReductionNames);
  if (!in.plain || !scale) return py::none();
  const MixtureArguments a{.z = at, .mean = means, .scale = *scale, .scale_kind = kind, .logits = weights};
  return log_prob(in, a, reduce, at.sizes());
}

// The operators also accept several samples per row of target, since `reconstruction_loss` flattens them.
bool have_same_rows(const Tensor& recon, const Tensor& target) { return recon.size(0) == target.size(0); }

py::object elbo_entry(bool with_terms, py::handle recon, py::handle target, py::handle mu, py::handle logvar,
                      py::handle std, py::handle logstd, py::handle rho, py::handle logvar_range, py::handle prior,
                      py::handle kl, py::handle likelihood, py::handle beta, py::handle weight, py::handle pos_weight,
                      py::handle reduction) {
  Arguments in;
  const Tensor output = in.tensor(recon), data = in.tensor(target);
  OptionalTensor mean = in.optional_tensor(mu);
  auto [scale, kind] = in.scale(logvar, std, logstd, rho);
  const auto [low, high] = in.range(logvar_range);
  OptionalTensor divergence = in.optional_tensor(kl);
  const OptionalTensor factor = in.factor(weight), positive = in.factor(pos_weight);
  const std::optional<double> beta_number = in.number(beta);
  const OptionalTensor beta_tensor = beta_number ? OptionalTensor() : OptionalTensor(in.tensor(beta));
  const int64_t reduce = in.code(reduction, kReductionNames);
  const Arguments::Likelihood like = in.likelihood(likelihood, output);
  if (!logvar_range.is_none() || !prior.is_none()) {  // the KL has its own kernel
    if (!in.plain || !mean || !scale || divergence || output.dim() == 0) return py::none();
    if (!fits(logvar_range, kind)) return py::none();
    const auto [prior_mean, prior_scale] = in.prior(prior, *mean, *scale);
    const LatentArguments latent{.mu = *mean,
                                 .scale = *scale,
                                 .scale_kind = kind,
                                 .low = low,
                                 .high = high,
                                 .prior_mean = prior_mean,
                                 .prior_scale = prior_scale};
    if (!in.plain || find_error(latent) || mean->size(0) != output.size(0)) return py::none();
    const py::gil_scoped_release release;
    divergence = kl_divergence(latent, kNone);
    mean.reset(), scale.reset();
  }
  const ElboArguments a{.recon = output,
                        .target = data,
                        .mu = mean,
                        .scale = scale,
                        .scale_kind = kind,
                        .kl = divergence,
                        .likelihood = like.code,
                        .parameters = like.parameters,
                        .log_library = like.log_library,
                        .beta = beta_number.value_or(1.0),
                        .beta_tensor = beta_tensor,
                        .weight = factor,
                        .pos_weight = positive,
                        .reduction = reduce};
  if (!in.plain || find_error(a) || !have_same_rows(output, data)) return py::none();
  variable_list out;
  {
    const py::gil_scoped_release release;
    out = elbo(a, with_terms);
  }
  return with_terms ? py::make_tuple(wrap(out[0]), wrap(out[1]), wrap(out[2])) : wrap(out[0]);
}

py::object elements_entry(py::handle recon, py::handle target, py::handle likelihood, py::handle weight,
                          py::handle pos_weight) {
  Arguments in;
  const Tensor output = in.tensor(recon), data = in.tensor(target);
  const Arguments::Likelihood like = in.likelihood(likelihood, output);
  const OptionalTensor factor = in.factor(weight), positive = in.factor(pos_weight);
  const LikelihoodArguments a{.recon = output,
                              .target = data,
                              .likelihood = like.code,
                              .parameters = like.parameters,
                              .log_library = like.log_library,
                              .weight = factor,
                              .pos_weight = positive};
  if (!in.plain || find_error(a) || !have_same_rows(output, data)) return py::none();
  Tensor out;
  {
    const py::gil_scoped_release release;
    out = elements(a);
  }
  return wrap(out);
}

// Calls `function(name, inputs, codes, numbers, upstream, needs_grad)` of pyvae/_gradient.py.
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
        (*held)(call.name, list(call.inputs), call.codes, call.numbers, list(call.upstream), call.needs_grad);
    variable_list out;
    for (const py::handle gradient : gradients) {
      out.push_back(gradient.is_none() ? Tensor() : THPVariable_Unpack(gradient.ptr()));
    }
    return out;
  };
}

template <class Names>
py::tuple listed(const Names& names) {
  py::list out;
  for (const char* const name : names) out.append(name);
  return py::tuple(out);
}

// ((name, traits), ...); the keys of `traits` are the names in pyvae/likelihoods/_member.py.
py::tuple listed_likelihoods() {
  py::list out;
  for (int code = 0; code < Likelihoods::kCount; ++code) {
    const Trait& trait = kTraits.values[code];
    py::dict traits;
    traits["parameters"] = trait.parameters;
    traits["takes_pos_weight"] = trait.takes_pos_weight;
    traits["is_probability"] = trait.is_probability;
    traits["has_unit_target"] = trait.has_unit_target;
    traits["is_count"] = trait.is_count;
    traits["softmax"] = kSoftmaxNames[int64_t(trait.softmax)];
    out.append(py::make_tuple(kLikelihoodNames[code], traits));
  }
  return py::tuple(out);
}

}  // namespace
}  // namespace pyvae

PYBIND11_MODULE(_C, m) {
  using namespace pyvae;
  m.def("reparameterize", &reparameterize_entry);
  m.def("kl_divergence", &kl_divergence_entry);
  m.def("gaussian_log_prob", &gaussian_log_prob_entry);
  m.def("mixture_log_prob", &mixture_log_prob_entry);
  m.def("elbo", &elbo_entry);
  m.def("elements", &elements_entry);
  m.def("set_reference_gradient", &set_reference_gradient);
  m.def("cuda_runnable", [](int index) { return is_runnable(at::kCUDA, index); });
  m.def("isa", [] { return cpu::instruction_set() ? cpu::instruction_set()->name : "none"; });
  m.attr("LIKELIHOODS") = listed_likelihoods();
  m.attr("SCALES") = listed(kScaleNames);
  m.attr("REDUCTIONS") = listed(kDivergenceReductionNames);
}
