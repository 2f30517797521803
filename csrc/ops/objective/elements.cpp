// Decoder side without sums: one value per element; the upstream gradient is a tensor in recon's shape.
#include <ATen/ops/ones.h>

#include <algorithm>

#include "ops/autograd.h"
#include "ops/objective/autograd.h"
#include "ops/objective/implement.h"
#include "ops/objective/saved_gradients.h"

namespace pyvae {

namespace {

std::tuple<Tensor, Gradients> forward(const LikelihoodArguments& a, int64_t output_mask) {
  if (const auto* const functions = direct<ObjectiveFunctions>(a.recon, a)) {
    RECORD_FUNCTION("pyvae::elements_forward", c10::ArrayRef<const c10::IValue>());
    return functions->elements(a, output_mask);
  }
  static const auto op = find_operator<ElementsForward>("pyvae::elements_forward");
  auto [values, recon, parameters, log_library] = call(op, a, output_mask);
  return {values, from_outputs({recon, parameters, log_library})};
}

// Whether an upstream gradient per element can multiply this gradient. It cannot after a softmax, which mixes a row's
// elements, or for a broadcast parameter, whose gradient is a sum.
bool is_elementwise(const LikelihoodArguments& a, int64_t place) {
  if (place == kGradRecon) return !has_softmax(a);
  return place >= kGradParameter && a.parameters[size_t(place - kGradParameter)]->sym_sizes() == a.recon.sym_sizes();
}

// Whether an upstream gradient per row can multiply this gradient.
bool is_row_scalable(const LikelihoodArguments& a, int64_t place) {
  if (place < kGradParameter) return true;
  const Tensor& parameter = *a.parameters[size_t(place - kGradParameter)];
  return parameter.dim() == a.recon.dim() && parameter.size(0) == a.recon.size(0);
}

int64_t elementwise_places(const LikelihoodArguments& a, int64_t mask) {
  int64_t out = 0;
  for (int64_t place = 0; place < kGradients; ++place) {
    if (is_set(mask, place) && is_elementwise(a, place)) out |= int64_t(1) << place;
  }
  return out;
}

// Returns upstream [B, ...] as [B], or as a scalar, if each row, or the whole tensor, visibly has one number: sum()
// expands a number, and mean() writes it out, which the CPU can compare. Otherwise undefined.
Tensor as_rows(const Tensor& upstream) {
  if (upstream.numel() == 0) return Tensor();
  if (upstream.is_cpu() && upstream.is_contiguous()) {
    const Tensor flat = as_scalar_if_uniform(upstream.view({-1}));
    if (flat.dim() == 0) return flat;
  }
  Tensor rows = upstream;
  while (rows.dim() > 1) {
    if (rows.size(1) != 1 && rows.stride(1) != 0) return Tensor();
    rows = rows.select(1, 0);
  }
  return rows.stride(0) == 0 || rows.size(0) == 1 ? rows.select(0, 0)
         : rows.is_cpu()                          ? as_scalar_if_uniform(rows)
                                                  : rows;
}

struct Elements : torch::autograd::Function<Elements> {
  // The order in which inputs are saved and the reference takes them.
  enum Input : int64_t {
    kRecon,
    kTarget,
    kParameter,
    kLogLibrary = kParameter + kMaxParameters,
    kWeight,
    kPosWeight,
    kInputs
  };
  static int64_t input_of(int64_t place) {
    return place == kGradRecon ? kRecon : place == kGradLogLibrary ? kLogLibrary : kParameter + place - kGradParameter;
  }

  // The gradients that the forward pass computes, for an upstream gradient of 1. None if saved-tensor hooks would not
  // see them, or if rounding would come before the upstream gradient. A tracer cannot look at the upstream gradient:
  // then only those that any upstream gradient can multiply.
  static int64_t gradients_in_forward(const LikelihoodArguments& a) {
    if (at::SavedTensorDefaultHooks::get_hooks() || is_any_in_16_bits(a)) return 0;
    const int64_t mask = required_gradients(a);
    return direct<ObjectiveFunctions>(a.recon, a) ? mask : elementwise_places(a, mask);
  }

  template <class... Inputs>
  static variable_list forward(AutogradContext* ctx, const LikelihoodArguments* a, const Inputs&... inputs) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const int64_t output_mask = gradients_in_forward(*a);
    auto [values, gradients] = pyvae::forward(*a, output_mask);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({value_or_undefined(inputs)...});
    ctx->saved_data["likelihood"] = a->likelihood;
    for (int64_t place = 0; place < kGradients; ++place) {
      if (is_set(output_mask, place)) ctx->saved_data[buffer_name(place)] = gradients[place];
    }
    return {values};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    constexpr int kBefore = 1;  // forward's arguments before the inputs
    variable_list out(kBefore + kInputs);
    const Tensor& upstream = grads[0];  // [B, ...]
    if (!upstream.defined()) return out;
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<bool> needs_grad = needs_input_grad(ctx, saved);
    OptionalTensor given[kInputs];
    for (int64_t i = 0; i < kInputs; ++i) given[i] = optional(saved[i]);
    Parameters parameters;
    for (int64_t i = kParameter; i < kLogLibrary && given[i]; ++i) parameters.push_back(given[i]);
    const int64_t likelihood = ctx->saved_data["likelihood"].toInt();
    const LikelihoodArguments a{.recon = saved[kRecon],
                                .target = saved[kTarget],
                                .likelihood = likelihood,
                                .parameters = parameters,
                                .log_library = given[kLogLibrary],
                                .weight = given[kWeight],
                                .pos_weight = given[kPosWeight]};
    check("elements", find_error(a));  // saved-tensor hooks may return anything
    int64_t mask = 0;
    for (int64_t place = 0; place < kGradients; ++place) mask |= int64_t(needs_grad[input_of(place)]) << place;
    const auto* const functions = is_plain(upstream) ? direct<ObjectiveFunctions>(a.recon, a) : nullptr;
    const Tensor rows = functions ? as_rows(upstream) : Tensor();
    // A mask cannot be combined with another weight.
    const bool masked = a.weight && a.weight->scalar_type() == at::kBool && !rows.defined() &&
                        (is_any_in_16_bits(a) || elementwise_places(a, mask) != mask);
    if (at::GradMode::is_enabled() || has_tangent(grads) || needs_grad[kTarget] || needs_grad[kWeight] ||
        needs_grad[kPosWeight] || is_batched(grads) || masked) {
      const variable_list gradients = reference_gradient()({"elements", saved, {likelihood}, {}, grads, needs_grad});
      std::copy(gradients.begin(), gradients.end(), out.begin() + kBefore);
      return out;
    }
    const at::AutoDispatchBelowADInplaceOrView below;
    const Gradients found =
        rows.defined() ? times_rows(ctx, a, functions, rows, mask) : times_elements(ctx, a, functions, upstream, mask);
    for (int64_t place = 0; place < kGradients; ++place) {
      if (is_set(mask, place)) out[kBefore + input_of(place)] = found[place];
    }
    return out;
  }

  // rows: [B] or a scalar.
  static Gradients times_rows(AutogradContext* ctx, const LikelihoodArguments& a, const ObjectiveFunctions* functions,
                              const Tensor& rows, int64_t mask) {
    Gradients out;
    const bool is_done = rows.is_cpu() && is_one(rows);
    int64_t missing = 0;
    for (int64_t place = 0; place < kGradients; ++place) {
      if (!is_set(mask, place)) continue;
      const Tensor buffer = take_buffer(ctx, place);
      if (buffer.defined() && (rows.dim() == 0 || is_row_scalable(a, place))) {
        out[place] = is_done ? buffer : buffer.mul_(aligned_rows(rows, buffer));
      } else {
        missing |= int64_t(1) << place;
      }
    }
    if (missing != 0) {
      const Gradients found = compute_gradients(a, functions, rows.expand({a.recon.size(0)}), missing);
      for (int64_t place = 0; place < kGradients; ++place) {
        if (is_set(missing, place)) out[place] = found[place];
      }
    }
    return out;
  }

  // Without `functions`, a tracer can follow it too.
  static Gradients times_elements(AutogradContext* ctx, const LikelihoodArguments& a,
                                  const ObjectiveFunctions* functions, const Tensor& given, int64_t mask) {
    const bool masked = a.weight && a.weight->scalar_type() == at::kBool;
    // Elements that the mask excludes get gradient 0, whatever the upstream gradient is: NaN times 0 would be NaN.
    const Tensor upstream = masked ? given.masked_fill(a.weight->logical_not(), 0) : given;
    Gradients out;
    int64_t missing = 0;
    for (int64_t place = 0; place < kGradients; ++place) {
      if (!is_set(mask, place)) continue;
      Tensor buffer;
      const auto entry = ctx->saved_data.find(buffer_name(place));
      if (functions) {
        buffer = take_buffer(ctx, place);
      } else if (entry != ctx->saved_data.end()) {
        buffer = entry->second.toTensor();
      }
      if (!buffer.defined() || !is_elementwise(a, place)) {
        missing |= int64_t(1) << place;
      } else {
        out[place] = functions ? buffer.mul_(upstream) : (buffer * upstream).to(buffer.scalar_type());
      }
    }
    if (missing == 0) return out;
    // A mask stays a mask: here its gradients are per element, and are multiplied afterwards.
    const OptionalTensor weight = masked ? a.weight : a.weight ? *a.weight * upstream : upstream;
    const LikelihoodArguments weighted{.recon = a.recon,
                                       .target = a.target,
                                       .likelihood = a.likelihood,
                                       .parameters = a.parameters,
                                       .log_library = a.log_library,
                                       .weight = weight,
                                       .pos_weight = a.pos_weight};
    const Tensor ones = at::ones({}, upstream.options()).expand_symint({a.recon.sym_size(0)});
    const Gradients found = compute_gradients(weighted, functions, ones, missing);
    for (int64_t place = 0; place < kGradients; ++place) {
      if (is_set(missing, place)) out[place] = masked ? found[place] * upstream : found[place];
    }
    return out;
  }

  template <size_t... k>
  static Tensor of(const LikelihoodArguments& a, std::index_sequence<k...>) {
    const auto parameter = [&a](size_t i) -> const OptionalTensor& {
      return i < a.parameters.size() ? a.parameters[i] : kAbsent;
    };
    return apply(&a, a.recon, a.target, parameter(k)..., a.log_library, a.weight, a.pos_weight)[0];
  }
};

// Registered with the dispatcher, so its arguments are unchecked.
Tensor checked_elements(const LikelihoodArguments& a) {
  check("elements", find_error(a));
  return elements(a);
}

}  // namespace

Tensor elements(const LikelihoodArguments& a) {
  if (needs_gradient(a)) return Elements::of(a, std::make_index_sequence<kMaxParameters>());
  const at::AutoDispatchBelowADInplaceOrView below;
  return std::get<0>(forward(a, /*output_mask=*/0));
}

TORCH_LIBRARY_IMPL(pyvae, CompositeExplicitAutograd, m) { m.impl("elements", flat<&checked_elements>()); }
TORCH_LIBRARY_IMPL(pyvae, Autograd, m) { m.impl("elements", flat<&checked_elements>()); }

}  // namespace pyvae
