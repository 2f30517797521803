// Runs every CPU kernel under the sanitizers (`make sanitize`): all scales, likelihoods, types and layouts, over sizes
// around vectors and chunks, in heap blocks of exactly the bytes that a kernel may touch, so that one byte too many is
// seen. Each result is compared, bit for bit, with that of contiguous operands, and chunk by chunk with the whole.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "math/gaussian.h"
#include "math/likelihood.h"
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
  backward.low = forward.low, backward.high = forward.high;
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

template <class T>
std::string objective(const Kernels& kernels, const Case& c, Layout in, Layout out, bool by_chunk) {
  Block recon(c.shape, c.type, in), target(c.shape, c.data, in), gradient(c.shape, c.type, out);
  Block weight(c.shape, c.variant & 16 ? kBool : c.type, in), pos_weight(c.shape, c.other, in);
  const bool probability = visit(Likelihoods{}, c.code, [](auto tag) { return decltype(tag)::type::kProbability; });
  recon.fill(is_broadcast(in) ? half : probability ? plain : special);
  for (Block* input : {&target, &weight, &pos_weight}) input->fill(is_broadcast(in) ? quarter : plain);
  const bool unit_target = visit(Likelihoods{}, c.code, [](auto tag) { return decltype(tag)::type::kUnitTarget; });
  if (unit_target && c.data >= FloatingTypes::kCount) target.fill(is_broadcast(in) ? sixteenth : binary);

  Objective call{};
  call.shape = c.shape, call.likelihood = c.code, call.factor = 0.5;
  call.recon = recon.operand, call.target = target.operand;
  std::vector<double> sums(size_t(Chunks(c.shape).partials())), upstream(size_t(c.shape.rows), 3.0);
  if (c.variant & 1) call.weight = weight.operand, call.is_masked = (c.variant & 16) != 0;
  if (c.variant & 2) call.pos_weight = pos_weight.operand;
  if (c.variant & 4) call.upstream = upstream.data();
  if (!(c.variant & 8)) call.gradient = gradient.operand;
  call.sums = c.variant & 4 ? nullptr : sums.data();
  bool legal = true;
  run([&](const Objective& o, int64_t a, int64_t b) { legal &= kernels.objective(o, a, b); }, call, by_chunk);
  expect(legal, "every probability and target is legal");

  std::string all = call.gradient.data ? gradient.bytes() : "";
  return call.sums ? all + bytes_of(sums) : all;
}

// Runs groups [0, all) at once or one by one, from the last to the first.
void run_by_rows(const Kernels& kernels, const Objective& call, bool with_columns, bool by_group) {
  const int64_t groups = Groups(call.shape, with_columns).count;
  std::vector<double> scratch(size_t(call.shape.features));  // of either type
  bool legal = by_group || kernels.objective_by_rows(call, 0, groups, scratch.data());
  for (int64_t group = by_group ? groups : 0; group-- > 0;)
    legal &= kernels.objective_by_rows(call, group, group + 1, scratch.data());
  expect(legal, "every count is legal");
}

// By `variant`: 0 a parameter's gradient by element, 1 summed over rows, 2 over columns, 3 not wanted.
template <class T>
std::string by_rows(const Kernels& kernels, const Case& c, Layout in, Layout out, bool by_group) {
  const int form = c.variant & 3;
  const bool with_columns = form == 2;
  Block recon(c.shape, c.type, in), target(c.shape, c.data, in), gradient(c.shape, c.type, out);
  Block weight(c.shape, c.variant & 4 ? kBool : c.other, in);
  Block first(c.shape, c.other, in), second(c.shape, c.other, in);
  Block by_first(c.shape, c.other, out), by_second(c.shape, c.other, out);
  // Mostly 0, or mostly counted: the kernels gather what is not 0 where that is less.
  const auto counts = [&c](int64_t i) { return i % (c.shape.features % 2 ? 5 : 50) ? double(i % 3) : 0.0; };
  const auto sparse = [](int64_t i) { return i % 7 ? 0.0 : double(1 + i % 3); };
  recon.fill(is_broadcast(in) ? half : special);
  for (Block* input : {&weight, &first, &second}) input->fill(is_broadcast(in) ? quarter : plain);
  if (is_broadcast(in))
    target.fill(quarter);
  else if (c.variant & 8)
    target.fill(sparse);
  else
    target.fill(counts);

  const auto rows = size_t(c.shape.rows), features = size_t(c.shape.features);
  std::vector<double> sums(rows), library(rows, 0.5), by_library(rows), upstream(rows, 3.0);
  std::vector<double> row_sums(2 * rows), column_sums(2 * size_t(Groups(c.shape, with_columns).count) * features);
  Objective call{};
  call.shape = c.shape, call.likelihood = c.code, call.factor = 0.5;
  call.recon = recon.operand, call.target = target.operand;
  call.sums = sums.data();
  if (c.variant & 16) call.weight = weight.operand, call.upstream = upstream.data();
  call.is_masked = (c.variant & 16) && (c.variant & 4);
  if (!(c.variant & 32)) call.gradient = gradient.operand;
  int parameters = 0;
  visit(Likelihoods{}, c.code, [&](auto tag) {
    using Likelihood = typename decltype(tag)::type;
    parameters = Likelihood::kParameters;
    call.softmax =
        Likelihood::kSoftmax == Softmax::kAlways || (Likelihood::kSoftmax == Softmax::kOptional && c.variant & 64);
    if (call.softmax && Likelihood::kSoftmax == Softmax::kOptional) {
      call.log_library = library.data(), call.library_gradient = by_library.data();
    }
  });
  const Block* const own[] = {&first, &second};
  const Block* const elements[] = {&by_first, &by_second};
  for (int k = 0; k < parameters; ++k) {
    call.parameters[k] = own[k]->operand;
    if (form == 0) call.parameter_gradients[k] = elements[k]->operand;
    if (form == 1) call.row_sums[k] = row_sums.data() + size_t(k) * rows;
    if (form == 2) call.column_sums[k] = column_sums.data() + size_t(k) * column_sums.size() / 2;
  }
  run_by_rows(kernels, call, with_columns && parameters > 0, by_group);

  std::string all = bytes_of(sums) + bytes_of(row_sums) + bytes_of(column_sums) + bytes_of(by_library);
  if (call.gradient.data) all += gradient.bytes();
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

template <class... Members>
constexpr int count_plain(Types<Members...>) {  // the first of them
  return (0 + ... + int(!Members::kByRows));
}
constexpr int kPlain = count_plain(Likelihoods{});

template <class T>
void check_all(const Kernels& kernels, const std::vector<std::pair<Type, Type>>& types) {
  int turn = 0;  // the variants take turns over shapes and types: all are met, not all with all
  for (const Shape& shape : shapes()) {
    for (const auto& [type, other] : types) {
      for (int code = 0; code < std::max(Scales::kCount, kPlain); ++code, ++turn) {
        const uint64_t first_index = uint64_t(turn % 7) + (turn % 2 ? 0 : uint64_t(-1) - 3);  // wraps around, too
        // Bits: eps given; no sample; no divergence (never both left out); a prior; of each element; clamped.
        const int sampler = std::vector<int>{0, 1, 2, 4, 5, 8, 9, 10, 26, 32, 41, 56, 58}[size_t(turn) % 13];
        check(kernels, latent<T>, {shape, type, other, code % Scales::kCount, sampler, first_index, other}, "latent");
        // Bits: weight; pos_weight; upstream and no sums; no gradient; weight is a mask.
        const int decoder = std::vector<int>{0, 1, 2, 3, 4, 7, 8, 11, 17, 27, 21}[size_t(turn) % 11];
        // Every second target consists of integers, of each type in turn.
        const Type data = turn / 4 % 2 ? Type(FloatingTypes::kCount + turn / 8 % kIntegers) : other;
        check(kernels, objective<T>, {shape, type, other, code % kPlain, decoder, 0, data}, "objective");
        const int by_row = turn * 37 % 128;  // every combination of bits in turn
        const int counted = kPlain + turn % (Likelihoods::kCount - kPlain);
        check(kernels, by_rows<T>, {shape, type, other, counted, by_row, 0, data}, "by rows");
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
    bool legal = true;
    run([&](const Objective& o, int64_t a, int64_t b) { legal &= set.in_float.objective(o, a, b); }, call, true);
    expect(legal == std::isnan(bad), "a probability outside [0, 1] is refused, NaN is not");
    for (const int code : {kCode<Bernoulli, Likelihoods>, kCode<BernoulliLogits, Likelihoods>}) {
      legal = true, call.likelihood = code, call.recon = target.operand, call.target = recon.operand;
      run([&](const Objective& o, int64_t a, int64_t b) { legal &= set.in_float.objective(o, a, b); }, call, true);
      expect(legal == std::isnan(bad), "a target outside [0, 1] is refused, NaN is not");
    }
  }
  for (const double bad : {-0.0625, -double(INFINITY), double(NAN)}) {
    const Shape shape{3, 1025, 2, {3, 1025}};
    Block recon(shape, kFloat, kContiguous), target(shape, kFloat, kContiguous);
    recon.fill(plain);
    target.fill([bad](int64_t i) { return i == 3 * 1025 - 1 ? bad : plain(i); });
    Objective call{};
    std::vector<double> sums(3);
    call.shape = shape, call.recon = recon.operand, call.target = target.operand, call.factor = 1;
    call.likelihood = kCode<Poisson, Likelihoods>, call.sums = sums.data();
    expect(set.in_float.objective_by_rows(call, 0, 3, nullptr) == std::isnan(bad),
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
  check_refusals(*set);
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
