// Runs every CPU kernel under the sanitizers (`make sanitize`): all scales, likelihoods, types and layouts, over sizes
// around vectors and chunks, in heap blocks of exactly the bytes that a kernel may touch, so that one byte too many is
// seen. Each result is compared, bit for bit, with that of contiguous operands, and chunk by chunk with the whole.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "math/gaussian.h"
#include "math/likelihood.h"
#include "mixtures.h"
#include "operands.h"

namespace {

using namespace pyvae;
using namespace pyvae::cpu;

int passed = 0, failed = 0;

void expect(bool holds, const std::string& what) {
  holds ? ++passed : ++failed;
  if (!holds) std::printf("FAILED: %s\n", what.c_str());
}

// ---- one call -------------------------------------------------------------------------------------------------------

// Runs chunks [0, all) at once or one by one, from the last to the first.
template <class Kernel, class Call>
void run(Kernel kernel, const Call& call, bool by_chunk) {
  const int64_t chunks = Chunks(call.shape).count;
  if (!by_chunk) kernel(call, 0, chunks);
  for (int64_t chunk = by_chunk ? chunks : 0; chunk-- > 0;) kernel(call, chunk, chunk + 1);
}

std::string bytes_of(const std::vector<double>& sums) {
  return {reinterpret_cast<const char*>(sums.data()), sums.size() * sizeof(double)};
}

// What one combination consists of; `layout` and `by_chunk` must not change the result.
struct Case {
  Shape shape;
  Type type, other;  // of the first operand and of the second
  int code;          // scale or likelihood
  int variant;       // which optional operands are there, a bit each
  uint64_t first_index;
  Type data;  // of the target
};

// Inputs: multiples of 1/16 in (0, 1), which every type holds exactly, with a few values that are special.
double half(int64_t) { return 0.5; }
double quarter(int64_t) { return 0.25; }
double plain(int64_t i) { return double(1 + (i * 7 + i / 16) % 15) / 16; }
double sixteenth(int64_t) { return 1.0 / 16; }
double binary(int64_t i) { return double(i % 3 == 0) / 16; }  // of integers, which store() multiplies by 16: 0 and 1
double special(int64_t i) {
  const double values[] = {0.0, -0.0, 1.0, INFINITY, -INFINITY, NAN};
  return i % 23 == 5 ? values[i / 23 % 6] : plain(i) * 8 - 4;
}

template <class T>
std::string latent(const Kernels& kernels, const Case& c, Layout in, Layout out, bool by_chunk) {
  const Type result = sizeof(T) == 8 ? kDouble : c.type;
  Block mu(c.shape, c.type, in), scale(c.shape, c.other, in), eps(c.shape, c.type, in), grad(c.shape, result, in);
  Block z(c.shape, result, out), grad_mu(c.shape, c.type, out), grad_scale(c.shape, c.other, out);
  Block prior_mean(c.shape, c.other, in), prior_scale(c.shape, c.type, in), grad_elements(c.shape, c.other, in);
  const Type computed = sizeof(T) == 8 ? kDouble : kFloat;
  Block elements(c.shape, computed, out), grad_mean(c.shape, computed, out), grad_prior_scale(c.shape, computed, out);
  for (Block* input : {&mu, &scale, &eps, &grad, &prior_mean, &prior_scale, &grad_elements})
    input->fill(is_broadcast(in) ? half : special);

  LatentForward forward{};
  forward.shape = c.shape, forward.scale_kind = c.code;
  if (c.variant & 8) forward.prior_mean = prior_mean.operand, forward.prior_scale = prior_scale.operand;
  if (c.variant & 16) forward.elements = elements.operand;
  if (c.variant & 32) forward.low = -1, forward.high = 2;
  if (c.variant & 64) forward.samples = 3;  // all in one block: z is written over
  forward.mu = mu.operand, forward.scale = scale.operand;
  forward.seed = 5, forward.first_index = c.first_index;
  std::vector<double> divergence(size_t(Chunks(c.shape).partials()));
  if (c.variant & 1) forward.eps = eps.operand;
  if (!(c.variant & 2)) forward.z = z.operand;
  if (!(c.variant & 4)) forward.divergence = divergence.data();
  run(kernels.latent_forward, forward, by_chunk);

  LatentBackward backward{};
  backward.shape = c.shape, backward.scale_kind = c.code;
  backward.mu = mu.operand, backward.scale = scale.operand, backward.eps = forward.eps;
  backward.seed = 5, backward.first_index = c.first_index;
  backward.prior_mean = forward.prior_mean, backward.prior_scale = forward.prior_scale;
  backward.low = forward.low, backward.high = forward.high, backward.samples = forward.samples;
  const bool learned = (c.variant & 8) && !(c.variant & 4);
  if (learned) backward.grad_prior_mean = grad_mean.operand, backward.grad_prior_scale = grad_prior_scale.operand;
  if (c.variant & 16) backward.grad_elements = grad_elements.operand;
  std::vector<double> grad_kl(size_t(c.shape.rows), 0.75);
  if (!(c.variant & 2)) backward.grad_z = grad.operand;
  if (!(c.variant & 4)) backward.grad_kl = grad_kl.data();
  backward.grad_mu = grad_mu.operand, backward.grad_scale = grad_scale.operand;
  run(kernels.latent_backward, backward, by_chunk);

  std::string all = grad_mu.bytes() + grad_scale.bytes();
  if (forward.z.data) all += z.bytes();
  if (forward.elements.data) all += elements.bytes();
  if (learned) all += grad_mean.bytes() + grad_prior_scale.bytes();
  return forward.divergence ? all + bytes_of(divergence) : all;
}

// The objective's kernel on units [0, all) at once or one by one, from the last to the first.
template <class T>
bool run_objective(const Kernels& kernels, const Objective& call, bool by_unit) {
  const int64_t units = call.units().count;
  std::vector<T> scratch(size_t(kernels.objective_scratch(call)));
  bool legal = by_unit || kernels.objective(call, 0, units, scratch.data());
  for (int64_t unit = by_unit ? units : 0; unit-- > 0;) {
    legal &= kernels.objective(call, unit, unit + 1, scratch.data());
  }
  return legal;
}

// The low two bits of `variant`: 0 a parameter's gradient by element, 1 sums of it over rows, 2 over columns, 3 over
// all.
enum Variant { kForm = 3, kMask = 4, kSparse = 8, kFactors = 16, kNoGradient = 32, kWithSoftmax = 64, kInAll = 128 };

template <class T>
std::string objective(const Kernels& kernels, const Case& c, Layout in, Layout out, bool by_unit) {
  const int form = c.variant & kForm;
  Block recon(c.shape, c.type, in), target(c.shape, c.data, in), gradient(c.shape, c.type, out);
  Block weight(c.shape, c.variant & kMask ? kBool : c.other, in), pos_weight(c.shape, c.other, in);
  Block first(c.shape, c.other, in), second(c.shape, c.other, in), third(c.shape, c.other, in);
  Block by_first(c.shape, c.other, out), by_second(c.shape, c.other, out), by_third(c.shape, c.other, out);
  Block each(c.shape, sizeof(T) == 8 ? kDouble : kFloat, out);
  const Block* const own[kMaxParameters] = {&first, &second, &third};
  const Block* const elements[kMaxParameters] = {&by_first, &by_second, &by_third};
  // Mostly 0, or mostly counted: the kernels gather what is not 0 where that is less.
  const auto counts = [&c](int64_t i) { return i % (c.shape.features % 2 ? 5 : 50) ? double(i % 3) : 0.0; };
  const auto sparse = [](int64_t i) { return i % 7 ? 0.0 : double(1 + i % 3); };
  for (Block* input : {&weight, &pos_weight, &first, &second, &third}) {
    input->fill(is_broadcast(in) ? quarter : plain);
  }

  const auto rows = size_t(c.shape.rows), features = size_t(c.shape.features);
  const Chunks chunks(c.shape);
  Objective call{};
  call.shape = c.shape, call.likelihood = c.code, call.factor = 0.5;
  call.recon = recon.operand, call.target = target.operand;
  std::vector<double> sums(size_t(std::max(chunks.partials(), chunks.count)));
  std::vector<double> library(rows, 0.5), by_library(rows), upstream(rows, 3.0);
  (c.variant & kInAll ? call.value.chunks : call.value.rows) = sums.data();
  if (c.variant & kFactors) {
    call.is_weighted = true, call.weight = weight.operand, call.is_masked = (c.variant & kMask) != 0;
    call.upstream = upstream.data();
  }
  if (!(c.variant & kNoGradient)) call.gradient = gradient.operand;
  if (c.variant & kInAll) call.elements = each.operand;
  int parameters = 0;
  visit(Likelihoods{}, c.code, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    recon.fill(is_broadcast(in) ? half : Likelihood::kProbability ? plain : special);
    if (is_broadcast(in))
      target.fill(Likelihood::kUnitTarget && c.data >= FloatingTypes::kCount ? sixteenth : quarter);
    else if (Likelihood::kUnitTarget)
      target.fill(c.data >= FloatingTypes::kCount ? binary : plain);
    else if (c.variant & kSparse)
      target.fill(sparse);
    else
      target.fill(counts);
    parameters = Likelihood::kParameters;
    if (kTakesPosWeight<Likelihood> && form > 1) call.is_pos_weighted = true, call.pos_weight = pos_weight.operand;
    call.softmax = Likelihood::kSoftmax == Softmax::kAlways ||
                   (Likelihood::kSoftmax == Softmax::kOptional && c.variant & kWithSoftmax);
    if (call.softmax && Likelihood::kSoftmax == Softmax::kOptional) {
      call.log_library = library.data(), call.library_gradient = by_library.data();
    }
  });
  const size_t of_rows = sums.size(), of_columns = size_t(Units(chunks, call.softmax, true).count) * features;
  std::vector<double> parameter_sums(kMaxParameters * of_rows), column_sums(kMaxParameters * of_columns);
  for (int k = 0; k < parameters; ++k) {
    call.parameters[k] = own[k]->operand;
    if (form == 0) call.parameter_gradients[k] = elements[k]->operand;
    if (form == 1) call.by_parameter[k].rows = parameter_sums.data() + size_t(k) * of_rows;
    if (form == 2) call.column_sums[k] = column_sums.data() + size_t(k) * of_columns;
    if (form == 3) call.by_parameter[k].chunks = parameter_sums.data() + size_t(k) * of_rows;
  }
  expect(run_objective<T>(kernels, call, by_unit), "every probability, target and count is legal");

  std::string all = bytes_of(sums) + bytes_of(parameter_sums) + bytes_of(column_sums) + bytes_of(by_library);
  if (call.gradient.data) all += gradient.bytes();
  if (call.elements.data) all += each.bytes();
  for (int k = 0; k < parameters && form == 0; ++k) all += elements[k]->bytes();
  return all;
}

// ---- all of them ----------------------------------------------------------------------------------------------------

template <class Result>
void check(const Kernels& kernels, Result result, const Case& c, const std::string& name) {
  const std::string expected = result(kernels, c, kContiguous, kContiguous, false);
  const std::string broadcast = result(kernels, c, kOneRow, kContiguous, true);
  for (const Layout in : kInputs) {
    const Layout out = kInputs[in % 5];  // none that reads an element many times
    for (const bool by_chunk : {false, true}) {
      const std::string& same = is_broadcast(in) ? broadcast : expected;
      expect(result(kernels, c, in, out, by_chunk) == same,
             name + " code " + std::to_string(c.code) + " variant " + std::to_string(c.variant) + " types " +
                 std::to_string(int(c.type)) + std::to_string(int(c.other)) + std::to_string(int(c.data)) + " layout " +
                 std::to_string(in) + " rows " + std::to_string(c.shape.rows) + " features " +
                 std::to_string(c.shape.features));
    }
  }
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const int64_t features : {0, 1, 2, 3, 5, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1023, 1025, 1537}) {
    for (const int64_t rows : {0, 1, 3}) all.push_back({rows, features, 2, {rows, features}});
  }
  for (const int64_t rows : {31, 33, 511, 513})
    all.push_back({rows, 1, 1, {rows}}), all.push_back({rows, 3, 2, {rows, 3}});
  all.push_back({3, 2 * 7 * 11, 4, {3, 2, 7, 11}});
  all.push_back({2, 3 * 19 * 23, 4, {2, 3, 19, 23}});
  all.push_back({2, 64, 7, {2, 2, 2, 2, 2, 2, 2}});
  all.push_back({1, 1, 1, {1}});
  return all;
}

template <class T>
void check_all(const Kernels& kernels, const std::vector<std::pair<Type, Type>>& types) {
  int turn = 0;  // the variants take turns over shapes and types: all are met, not all with all
  for (const Shape& shape : shapes()) {
    for (const auto& [type, other] : types) {
      for (int code = 0; code < Likelihoods::kCount; ++code, ++turn) {
        const uint64_t first_index = uint64_t(turn % 7) + (turn % 2 ? 0 : uint64_t(-1) - 3);  // wraps around, too
        // Bits: eps given; no sample; no divergence (never both left out); a prior; of each element; clamped; three
        // samples.
        const int samplers[] = {0, 1, 2, 4, 5, 8, 9, 10, 26, 32, 41, 56, 58, 64, 69, 105};
        const int sampler = samplers[size_t(turn) % std::size(samplers)];
        check(kernels, latent<T>, {shape, type, other, code % Scales::kCount, sampler, first_index, other}, "latent");
        // Every second target consists of integers, of each type in turn.
        const Type data = turn / 4 % 2 ? Type(FloatingTypes::kCount + turn / 8 % kIntegers) : other;
        const int variant = turn * 37 % 256;  // every combination of bits in turn
        check(kernels, objective<T>, {shape, type, other, code, variant, 0, data}, "objective");
      }
    }
  }
}

template <class T>
void check_mixtures(const Kernels& kernels) {
  for (int code = 0; code < Scales::kCount; ++code) {
    for (const MixtureCase& c : kMixtures) {
      for (const auto number : {plain, special}) {
        const auto all = run_mixture<T>(kernels, c, code, number, false);
        expect(bytes_of(all) == bytes_of(run_mixture<T>(kernels, c, code, number, true)),
               "mixture code " + std::to_string(code) + " case " + std::to_string(&c - kMixtures));
      }
    }
  }
}

void check_refusals(const InstructionSet& set) {
  for (const double bad : {-0.0625, 1.0625, -double(INFINITY), double(INFINITY), double(NAN)}) {
    const Shape shape{1, 1025, 2, {1, 1025}};
    Block recon(shape, kFloat, kContiguous), target(shape, kFloat, kContiguous);
    target.fill(plain);
    recon.fill([bad](int64_t i) { return i == 1024 ? bad : plain(i); });
    Objective call{};
    call.shape = shape, call.recon = recon.operand, call.target = target.operand, call.factor = 1;
    bool legal = run_objective<float>(set.in_float, call, true);
    expect(legal == std::isnan(bad), "a probability outside [0, 1] is refused, NaN is not");
    for (const int code : {kCode<Bernoulli, Likelihoods>, kCode<BernoulliLogits, Likelihoods>}) {
      call.likelihood = code, call.recon = target.operand, call.target = recon.operand;
      legal = run_objective<float>(set.in_float, call, true);
      expect(legal == std::isnan(bad), "a target outside [0, 1] is refused, NaN is not");
    }
  }
  for (const double bad : {-0.0625, -double(INFINITY), double(NAN)}) {
    const Shape shape{3, 1025, 2, {3, 1025}};
    Block recon(shape, kFloat, kContiguous), target(shape, kFloat, kContiguous);
    recon.fill(plain);
    target.fill([bad](int64_t i) { return i == 3 * 1025 - 1 ? bad : plain(i); });
    Objective call{};
    call.shape = shape, call.recon = recon.operand, call.target = target.operand, call.factor = 1;
    call.likelihood = kCode<Poisson, Likelihoods>;
    expect(run_objective<float>(set.in_float, call, false) == std::isnan(bad),
           "a negative count is refused, NaN is not");
  }
}

}  // namespace

int main() {
  const InstructionSet* const set = instruction_set();
  if (!set) return std::puts("this CPU has no fused multiply-add: no kernels to run"), 1;
  const Type f = kFloat, d = kDouble, h = kHalf, b = kBFloat16;
  std::printf("kernels: %s\n", set->name);
  check_all<float>(set->in_float, {{f, f}, {h, h}, {b, f}, {f, b}, {h, b}});
  check_all<double>(set->in_double, {{d, d}, {f, d}, {d, h}});
  check_mixtures<float>(set->in_float), check_mixtures<double>(set->in_double);
  check_refusals(*set);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
