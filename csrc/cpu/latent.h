// Encoder side: a chunk's sample and divergence, and their gradient. The noise is drawn again in the backward pass.
#pragma once

#include "cpu/chunk.h"
#include "cpu/noise.h"
#include "cpu/source.h"
#include "math/gaussian.h"
#include "math/pair.h"

namespace pyvae {
inline namespace PYVAE_ISA {

// The skeleton of both directions. For each chunk, map(chunk) returns the values of its elements; their sums per row go
// to `sums` [partials].
template <class T, class Map>
void map_and_reduce(const Shape& shape, double* sums, int64_t begin, int64_t end, Map map) {
  const Chunks chunks(shape);
  for (int64_t index = begin; index < end; ++index) {
    const Chunk c = chunks[index];
    const T* const values = map(c);
    if (!sums) continue;
    if (chunks.length > 0) {
      sums[index] = sum(values, c.n);
    } else {
      sum_rows(values, c.rows, c.features, sums + c.row);
    }
  }
}

// One sample of an operand that has several.
inline Operand of_sample(Operand operand, int64_t step, int64_t sample) {
  operand.data = static_cast<char*>(operand.data) + step * sample;
  return operand;
}

// The caller's noise, or drawn noise.
template <class T, class Call>
const T* noise(const Call& a, int64_t sample, int64_t first, int n, T* buffer) {
  if (a.eps.data) return read(a.shape, of_sample(a.eps, a.eps_step, sample), first, n, buffer);
  return draw<T>(a.seed, uint64_t(sample), a.first_index + uint64_t(first), n, buffer);
}

template <class Scale, bool kOwnNoise, class T>
void map_sample(const T* __restrict mu, const T* __restrict scale, const T* __restrict eps, int n, T* __restrict z) {
  for (int i = 0; i < n; ++i)
    z[i] = Posterior<Scale>::template sample<kOwnNoise>(mu[i], Scale::sigma(scale[i]), eps[i]);
}

template <class Scale, class T>
void map_divergence(const T* __restrict mu, const T* __restrict scale, int n, T* __restrict values) {
  for (int i = 0; i < n; ++i) values[i] = Posterior<Scale>::divergence(mu[i], scale[i]);
}

// A call's prior. If its scale is one number, everything that depends on the scale is computed once.
template <class Scale, class T>
struct PriorSource {
  using OfPrior = typename Scale::template OfPrior<T>;
  Source<T> mean, scale;
  OfPrior number{};
  const bool is_number;

  PriorSource(const LatentOperands& a, const Chunks& chunks) : is_number(is_one_number(a.shape, a.prior_scale)) {
    if (!a.prior_mean.data) return;
    mean.open(a.shape, chunks, a.prior_mean), scale.open(a.shape, chunks, a.prior_scale);
    if (is_number && a.shape.rows * a.shape.features > 0) number = Scale::of_prior(scale(chunks[0])[0]);
  }
};

// The same for a given prior. kNumber: its scale is one number, and `number` was computed from it.
template <class Scale, bool kNumber, class T>
void map_divergence(const T* __restrict mu, const T* __restrict scale, const T* __restrict prior_mean,
                    const T* __restrict prior_scale, typename Scale::template OfPrior<T> number, int n,
                    T* __restrict values) {
  for (int i = 0; i < n; ++i) {
    const auto prior = kNumber ? number : Scale::of_prior(prior_scale[i]);
    values[i] = Posterior<Scale>::divergence(mu[i], scale[i], prior_mean[i], prior);
  }
}

// The clamped scale, in `buffer`; `scale` itself if there is no range.
template <class T>
const T* clamped(const LatentOperands& a, const T* scale, int n, T* buffer) {
  if (!a.is_clamped()) return scale;
  const Clamp<T> clamp{T(a.low), T(a.high)};
  for (int i = 0; i < n; ++i) buffer[i] = clamp(scale[i]);
  return buffer;
}

template <class T>
bool are_non_negative(const T* x, int n) {  // a NaN passes the check and reaches the results
  int negative = 0;
  for (int i = 0; i < n; ++i) negative |= x[i] < T(0);
  return !negative;
}

template <class Scale, class T>
bool latent_forward_of(const LatentForward& a, int64_t begin, int64_t end) {
  T mu_buffer[kBuffer], scale_buffer[kBuffer], eps_buffer[kBuffer], z_buffer[kBuffer], values_buffer[kBuffer];
  T clamped_buffer[kBuffer];
  PriorSource<Scale, T> prior(a, Chunks(a.shape));
  bool legal = true;
  map_and_reduce<T>(a.shape, a.divergence, begin, end, [&](const Chunk& c) -> const T* {
    const int64_t first = c.first;
    const int n = c.n;
    const T* mu = read(a.shape, a.mu, first, n, mu_buffer);
    const T* scale = clamped(a, read(a.shape, a.scale, first, n, scale_buffer), n, clamped_buffer);
    if (Scale::kNonNegative) legal &= are_non_negative(scale, n);
    for (int64_t sample = 0; a.z.data && sample < a.samples; ++sample) {
      const Operand of_z = of_sample(a.z, a.z_step, sample);
      T* z = place(of_z, first, z_buffer);
      const auto map = a.eps.data ? map_sample<Scale, false, T> : map_sample<Scale, true, T>;
      map(mu, scale, noise<T>(a, sample, first, n, eps_buffer), n, z);
      write(a.shape, of_z, first, n, z);
    }
    if (!a.divergence && !a.elements.data) return nullptr;
    T* values = place(a.elements, first, values_buffer);
    if (a.prior_mean.data) {
      const T* prior_scale = prior.scale(c);
      if (Scale::kNonNegative) legal &= are_non_negative(prior_scale, n);
      const auto map = prior.is_number ? map_divergence<Scale, true, T> : map_divergence<Scale, false, T>;
      map(mu, scale, prior.mean(c), prior_scale, prior.number, n, values);
    } else {
      map_divergence<Scale>(mu, scale, n, values);
    }
    if (a.elements.data) write(a.shape, a.elements, first, n, values);
    return values;
  });
  return legal;
}

template <class Scale, class T>
void map_sample_gradient(const T* __restrict scale, const T* __restrict eps, const T* __restrict grad_z, int n,
                         T* __restrict grad_mu, T* __restrict grad_scale) {
  for (int i = 0; i < n; ++i) {
    const auto gradient = Posterior<Scale>::sample_gradient(scale[i], eps[i], grad_z[i]);
    grad_mu[i] = gradient.mu, grad_scale[i] = gradient.scale;
  }
}

template <class T>
void add_to(const T* __restrict x, int n, T* __restrict high, T* __restrict low) {
  for (int i = 0; i < n; ++i) {
    Pair<T> sum = {high[i], low[i]};
    add(sum, x[i]);
    high[i] = sum.high, low[i] = sum.low;
  }
}

// The same for several samples, each with its own grad_z and noise, summed from the first to the last.
template <class Scale, class T>
PYVAE_NOINLINE void map_samples_gradient(const LatentBackward& a, const T* __restrict scale, int64_t first, int n,
                                         T* __restrict grad_mu, T* __restrict grad_scale) {
  T eps_buffer[kBuffer], grad_buffer[kBuffer], by_mu[kBuffer], by_scale[kBuffer];
  T mu_low[kBuffer] = {}, scale_low[kBuffer] = {};  // the rounding errors of the sums
  for (int i = 0; i < n; ++i) grad_mu[i] = grad_scale[i] = T(0);
  for (int64_t sample = 0; sample < a.samples; ++sample) {
    const T* grad_z = read(a.shape, of_sample(a.grad_z, a.grad_z_step, sample), first, n, grad_buffer);
    map_sample_gradient<Scale>(scale, noise<T>(a, sample, first, n, eps_buffer), grad_z, n, by_mu, by_scale);
    add_to(by_mu, n, grad_mu, mu_low), add_to(by_scale, n, grad_scale, scale_low);
  }
  for (int i = 0; i < n; ++i) {
    grad_mu[i] = rounded(Pair<T>{grad_mu[i], mu_low[i]});
    grad_scale[i] = rounded(Pair<T>{grad_scale[i], scale_low[i]});
  }
}

// The divergence's gradient, added to the sample's or alone.
template <class Scale, bool kAdd, class T>
void map_divergence_gradient(const T* __restrict mu, const T* __restrict scale, const T* __restrict grad_kl, int n,
                             T* __restrict grad_mu, T* __restrict grad_scale) {
  for (int i = 0; i < n; ++i) {
    const PosteriorGradient<T> sample = {kAdd ? grad_mu[i] : T(0), kAdd ? grad_scale[i] : T(0)};
    const auto gradient = Posterior<Scale>::divergence_gradient(mu[i], scale[i], grad_kl[i], sample);
    grad_mu[i] = gradient.mu, grad_scale[i] = gradient.scale;
  }
}

// The same for a given prior, added to the results so far; with kToPrior the prior's own gradient as well.
template <class Scale, bool kNumber, bool kToPrior, class T>
void map_prior_gradient(const T* __restrict mu, const T* __restrict scale, const T* __restrict prior_mean,
                        const T* __restrict prior_scale, typename Scale::template OfPrior<T> number,
                        const T* __restrict grad_kl, int n, T* __restrict grad_mu, T* __restrict grad_scale,
                        T* __restrict grad_prior_mean, T* __restrict grad_prior_scale) {
  for (int i = 0; i < n; ++i) {
    const auto prior = kNumber ? number : Scale::of_prior(prior_scale[i]);
    const PosteriorGradient<T> sample = {grad_mu[i], grad_scale[i]};
    const auto gradient =
        Posterior<Scale>::divergence_gradient(mu[i], scale[i], prior_mean[i], prior, grad_kl[i], sample);
    grad_mu[i] = gradient.posterior.mu, grad_scale[i] = gradient.posterior.scale;
    if (kToPrior) grad_prior_mean[i] = gradient.prior.mean, grad_prior_scale[i] = gradient.prior.scale;
  }
}

// The gradient of the scale before it was clamped.
template <class T>
void map_clamp_gradient(Clamp<T> clamp, const T* __restrict scale, int n, T* __restrict grad_scale) {
  for (int i = 0; i < n; ++i) grad_scale[i] = clamp.gradient(scale[i], grad_scale[i]);
}

template <class Scale, class T>
void latent_backward_of(const LatentBackward& a, int64_t begin, int64_t end) {
  T mu_buffer[kBuffer], scale_buffer[kBuffer], eps_buffer[kBuffer], grad_buffer[kBuffer];
  T grad_mu_buffer[kBuffer], grad_scale_buffer[kBuffer], clamped_buffer[kBuffer];
  PriorSource<Scale, T> prior(a, Chunks(a.shape));
  T grad_prior_mean_buffer[kBuffer], grad_prior_scale_buffer[kBuffer];
  map_and_reduce<T>(a.shape, nullptr, begin, end, [&](const Chunk& c) -> const T* {
    const int64_t first = c.first;
    const int n = c.n;
    const T* given = read(a.shape, a.scale, first, n, scale_buffer);
    const T* scale = clamped(a, given, n, clamped_buffer);
    T* grad_mu = place(a.grad_mu, first, grad_mu_buffer);
    T* grad_scale = place(a.grad_scale, first, grad_scale_buffer);
    if (a.grad_z.data && a.samples > 1) {
      map_samples_gradient<Scale>(a, scale, first, n, grad_mu, grad_scale);
    } else if (a.grad_z.data) {
      const T* grad_z = read(a.shape, a.grad_z, first, n, grad_buffer);
      map_sample_gradient<Scale>(scale, noise<T>(a, 0, first, n, eps_buffer), grad_z, n, grad_mu, grad_scale);
    }
    if (a.grad_kl || a.grad_elements.data) {
      const T* mu = read(a.shape, a.mu, first, n, mu_buffer);
      const T* grad_kl = a.grad_elements.data ? read(a.shape, a.grad_elements, first, n, grad_buffer)
                                              : spread(a.grad_kl, c, grad_buffer);
      if (a.prior_mean.data) {
        T* to_mean = place(a.grad_prior_mean, first, grad_prior_mean_buffer);
        T* to_scale = place(a.grad_prior_scale, first, grad_prior_scale_buffer);
        if (!a.grad_z.data) {
          for (int i = 0; i < n; ++i) grad_mu[i] = grad_scale[i] = T(0);
        }
        const bool to_prior = a.grad_prior_mean.data;
        const auto map =
            prior.is_number
                ? (to_prior ? map_prior_gradient<Scale, true, true, T> : map_prior_gradient<Scale, true, false, T>)
                : (to_prior ? map_prior_gradient<Scale, false, true, T> : map_prior_gradient<Scale, false, false, T>);
        map(mu, scale, prior.mean(c), prior.scale(c), prior.number, grad_kl, n, grad_mu, grad_scale, to_mean, to_scale);
        if (to_prior) {
          write(a.shape, a.grad_prior_mean, first, n, to_mean);
          write(a.shape, a.grad_prior_scale, first, n, to_scale);
        }
      } else {
        const auto map =
            a.grad_z.data ? map_divergence_gradient<Scale, true, T> : map_divergence_gradient<Scale, false, T>;
        map(mu, scale, grad_kl, n, grad_mu, grad_scale);
      }
    }
    if (a.is_clamped()) map_clamp_gradient({T(a.low), T(a.high)}, given, n, grad_scale);
    write(a.shape, a.grad_mu, first, n, grad_mu);
    write(a.shape, a.grad_scale, first, n, grad_scale);
    return nullptr;
  });
}

template <class T>
bool latent_forward(const LatentForward& a, int64_t begin, int64_t end) {
  return visit(Scales{}, a.scale_kind,
               [&](auto scale) { return latent_forward_of<typename decltype(scale)::type, T>(a, begin, end); });
}

template <class T>
void latent_backward(const LatentBackward& a, int64_t begin, int64_t end) {
  visit(Scales{}, a.scale_kind,
        [&](auto scale) { latent_backward_of<typename decltype(scale)::type, T>(a, begin, end); });
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
