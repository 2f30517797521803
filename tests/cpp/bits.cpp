// Prints a hash of the bytes that each CPU kernel writes, and one over all of them. tests/bits.py (`make bits`)
// compiles this with one compiler after the other, for one processor after the other, and compares: all write the same.
//
// What goes in is made of integers, and of products with powers of two, so that it is the same everywhere, too.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cpu/kernels.h"
#include "math/gaussian.h"
#include "math/likelihood.h"
#include "mixtures.h"
#include "operands.h"

namespace {

using namespace pyvae;
using namespace pyvae::cpu;

// ---- hashes ---------------------------------------------------------------------------------------------------------

std::map<std::string, uint64_t> hashes;  // by kernel
uint64_t* current;

void add(uint64_t word) {  // FNV-1a, a word at a time
  *current = (*current ^ word) * 0x100000001b3u;
  *current ^= *current >> 32;
}

// A NaN counts as one: which sign it has, and which operand's bits it keeps, each processor decides for itself.
template <class Stored>
void add_element(Stored stored) {
  const double value = widen<double>(stored);
  uint64_t word = 0;
  std::memcpy(&word, &stored, sizeof(stored));
  add(value != value ? 0x7ff8000000000000u : word);
}

template <class T>
void add_all(const std::vector<T>& numbers) {
  for (const T number : numbers) add_element(number);
}

void add_all(const Block& block) {
  const std::string bytes = block.bytes();
  visit(FloatingTypes{}, block.operand.type, [&](auto tag) {
    typename decltype(tag)::type stored;
    for (size_t i = 0; i < bytes.size(); i += sizeof(stored)) {
      std::memcpy(&stored, &bytes[i], sizeof(stored));
      add_element(stored);
    }
  });
}

template <class T>
void name(const std::string& kernel, const char* member) {
  current = &hashes.try_emplace(kernel + (sizeof(T) == 8 ? " double " : " float ") + member, 0xcbf29ce484222325u)
                 .first->second;
}

// ---- inputs ---------------------------------------------------------------------------------------------------------

uint64_t drawn = 0;  // one after the other

uint64_t draw() {  // splitmix64
  uint64_t x = drawn += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

double moderate(int64_t) { return double(int64_t(draw() >> 40) - (1 << 23)) * 0x1p-20; }  // [-8, 8)
double positive(int64_t) { return double(1 + (draw() >> 40)) * 0x1p-21; }                 // (0, 8]
double unit(int64_t) {                                                                    // [0, 1], and both ends
  const uint64_t bits = draw();
  return bits % 8 ? double(bits >> 40) * 0x1p-24 : double(bits >> 63);
}
double few(int64_t) {  // counts; bytes hold them
  const uint64_t bits = draw();
  return bits % 2 ? 0.0 : double(bits >> (bits % 4 ? 61 : 57));
}
double many(int64_t i, size_t bytes) {  // as many as an integer of this size holds; of 64 bits, a double's 53
  return draw() % 8 ? few(i) : double(draw() >> (bytes == 8 ? 11 : 65 - 8 * bytes));
}
double wild(int64_t i) {  // of any magnitude, and what is special
  const double special[] = {0.0,      -0.0,      INFINITY,       -INFINITY,   NAN,         1.0,   -1.0,
                            0x1p-149, 0x1p-1074, 0x1.fffffep127, -0x1.8p-130, 0x1.8p-1030, 88.75, -103.5};
  const uint64_t bits = draw();
  if (bits % 16 == 0) return special[(bits >> 8) % 14];
  const float any = bit_cast<float>(uint32_t(bits >> 32));
  return bits % 16 < 4 && any == any ? double(any) : moderate(i);
}
double simple(int64_t) { return double(int64_t(draw() % 8) - 3) / 2; }  // -1.5 to 2: sums are often 0

// ---- calls ----------------------------------------------------------------------------------------------------------

struct Case {
  Shape shape;
  Type type, other, data;  // of the first operand, of the second, of the target
  int code, variant;       // scale or likelihood; which optional operands are there, a bit each
  Layout in, out;
  int turn;
};

// Numbers of three kinds in turn.
double number(const Case& c, int64_t i) {
  return c.turn % 3 == 0 ? moderate(i) : c.turn % 3 == 1 ? wild(i) : simple(i);
}

template <class T>
void latent(const Kernels& kernels, const Case& c) {
  constexpr Type computed = kTypeCode<T>;
  const Type result = sizeof(T) == 8 ? kDouble : c.type;
  Block mu(c.shape, c.type, c.in), scale(c.shape, c.other, c.in), eps(c.shape, c.type, c.in);
  Block grad(c.shape, result, c.in), grad_elements(c.shape, c.other, c.in);
  Block prior_mean(c.shape, c.other, c.in), prior_scale(c.shape, c.type, c.in);
  Block z(c.shape, result, c.out), grad_mu(c.shape, c.type, c.out), grad_scale(c.shape, c.other, c.out);
  Block elements(c.shape, computed, c.out), grad_mean(c.shape, computed, c.out);
  Block grad_prior_scale(c.shape, computed, c.out);
  const auto any = [&](int64_t i) { return number(c, i); };
  for (Block* input : {&mu, &eps, &grad, &grad_elements, &prior_mean}) input->fill(any);
  for (Block* input : {&scale, &prior_scale}) c.turn % 3 == 0 ? input->fill(positive) : input->fill(any);
  const bool has_z = !(c.variant & 2), has_kl = !(c.variant & 4), has_prior = c.variant & 8;
  const bool by_element = c.variant & 16;

  LatentForward forward{};
  forward.shape = c.shape, forward.scale_kind = c.code;
  forward.mu = mu.operand, forward.scale = scale.operand;
  forward.seed = 5, forward.first_index = c.variant % 3 ? uint64_t(c.variant) : uint64_t(-1) - 3;  // wraps around
  if (c.variant & 1) forward.eps = eps.operand;
  if (has_z) forward.z = z.operand;
  std::vector<double> divergence(size_t(Chunks(c.shape).partials()));
  if (has_kl) forward.divergence = divergence.data();
  if (has_prior) forward.prior_mean = prior_mean.operand, forward.prior_scale = prior_scale.operand;
  if (by_element) forward.elements = elements.operand;
  if (c.variant & 32) forward.low = -1, forward.high = 2;
  if (c.variant & 64) forward.samples = 3;  // all in one block, of which the last stays
  kernels.latent_forward(forward, 0, Chunks(c.shape).count);

  const char* const member = names_of(Scales{})[c.code];
  name<T>("latent_forward", member);
  if (has_z) add_all(z);
  if (has_kl) add_all(divergence);
  if (by_element) add_all(elements);

  LatentBackward backward{};
  static_cast<LatentOperands&>(backward) = forward;
  backward.z = {}, backward.elements = {}, backward.seed = forward.seed;
  std::vector<double> grad_kl(size_t(c.shape.rows));
  for (double& number : grad_kl) number = moderate(0);
  if (has_z) backward.grad_z = grad.operand;
  if (has_kl) backward.grad_kl = grad_kl.data();
  if (by_element) backward.grad_elements = grad_elements.operand;
  if (has_prior && has_kl)
    backward.grad_prior_mean = grad_mean.operand, backward.grad_prior_scale = grad_prior_scale.operand;
  backward.grad_mu = grad_mu.operand, backward.grad_scale = grad_scale.operand;
  kernels.latent_backward(backward, 0, Chunks(c.shape).count);

  name<T>("latent_backward", member);
  add_all(grad_mu), add_all(grad_scale);
  if (has_prior && has_kl) add_all(grad_mean), add_all(grad_prior_scale);
}

// What fits the likelihood and the type: what is outside is refused.
template <class Likelihood>
void fill_target(Block& target, const Case& c) {
  if (c.data >= FloatingTypes::kCount)  // store() multiplies by 16
    target.fill(
        [&](int64_t i) { return (Likelihood::kUnitTarget ? double(draw() % 2) : many(i, size_of(c.data))) / 16; });
  else
    target.fill([&](int64_t i) {
      return Likelihood::kUnitTarget ? unit(i) : Likelihood::kIsCount ? few(i) : number(c, i);
    });
}

template <class T, class Likelihood>
void objective(const Kernels& kernels, const Case& c) {
  constexpr int P = Likelihood::kParameters;
  Block recon(c.shape, c.type, c.in), target(c.shape, c.data, c.in), gradient(c.shape, c.type, c.out);
  Block weight(c.shape, c.variant & 16 ? kBool : c.other, c.in), pos_weight(c.shape, c.other, c.in);
  const auto any = [&](int64_t i) { return number(c, i); };
  recon.fill([&](int64_t i) { return Likelihood::kProbability ? unit(i) : any(i); });
  fill_target<Likelihood>(target, c);
  for (Block* input : {&weight, &pos_weight}) input->fill(any);

  const auto rows = size_t(c.shape.rows), features = size_t(c.shape.features);
  const Chunks chunks(c.shape);
  const auto parts = size_t(std::max(chunks.partials(), chunks.count));  // of sums, per row or in all
  std::vector<double> upstream(rows), library(rows), by_library(rows), sums(parts), parameter_sums[kMaxParameters];
  for (size_t row = 0; row < rows; ++row) upstream[row] = moderate(0), library[row] = moderate(0);
  Objective call{};
  call.shape = c.shape, call.likelihood = c.code, call.factor = 0x1.99999ap-4;
  call.recon = recon.operand, call.target = target.operand;
  call.is_weighted = c.variant & (1 | 16), call.is_pos_weighted = kTakesPosWeight<Likelihood> && (c.variant & 2);
  if (call.is_weighted) call.weight = weight.operand;
  call.is_masked = (c.variant & 16) != 0;
  if (call.is_pos_weighted) call.pos_weight = pos_weight.operand;
  if (c.turn % 4 == 0) call.weight_number = 0.75;  // where there is no tensor
  if (c.variant & 4) call.upstream = upstream.data();
  if (!(c.variant & 8)) call.gradient = gradient.operand;

  name<T>("objective", Likelihood::kName);
  const int form = c.variant / 32 % 4;  // a parameter's gradient by element, summed over rows, columns, or all
  (c.variant & 32 ? call.value.chunks : call.value.rows) = sums.data();
  call.softmax =
      Likelihood::kSoftmax == Softmax::kAlways || (Likelihood::kSoftmax == Softmax::kOptional && c.variant & 128);
  const bool has_library = call.softmax && Likelihood::kSoftmax == Softmax::kOptional;
  if (has_library) call.log_library = library.data(), call.library_gradient = by_library.data();
  const auto units = size_t(Units(chunks, call.softmax, true).count);
  Block own[kMaxParameters] = {{c.shape, c.other, c.in}, {c.shape, c.other, c.in}, {c.shape, c.other, c.in}};
  Block by_own[kMaxParameters] = {{c.shape, c.other, c.out}, {c.shape, c.other, c.out}, {c.shape, c.other, c.out}};
  for (int k = 0; k < P || k < 2; ++k) own[k].fill(any);
  std::vector<T> column_sums[kMaxParameters];
  for (int k = 0; k < P; ++k) {
    parameter_sums[k].resize(parts), column_sums[k].resize(units * features);
    call.parameters[k] = own[k].operand;
    if (form == 0) call.parameter_gradients[k] = by_own[k].operand;
    if (form == 1) call.by_parameter[k].rows = parameter_sums[k].data();
    if (form == 2) call.column_sums[k] = column_sums[k].data();
    if (form == 3) call.by_parameter[k].chunks = parameter_sums[k].data();
  }
  std::vector<T> scratch(size_t(kernels.objective_scratch(call)));
  add(kernels.objective(call, 0, call.units().count, scratch.data()));
  add_all(sums), add_all(by_library);
  for (int k = 0; k < P; ++k) {
    if (form == 0) add_all(by_own[k]);
    add_all(parameter_sums[k]), add_all(column_sums[k]);
  }
  if (call.gradient.data) add_all(gradient);
}

// ---- all of them ----------------------------------------------------------------------------------------------------

const Shape kShapes[] = {
    {3, 2051, 2, {3, 2051}}, {2, 3 * 11 * 61, 4, {2, 3, 11, 61}},
    {40, 9, 2, {40, 9}},     {7, 130, 2, {7, 130}},
    {1, 4099, 2, {1, 4099}}, {35, 1, 1, {35}},
};

template <class T>
void run_mixtures(const Kernels& kernels) {
  for (int code = 0; code < Scales::kCount; ++code) {
    for (const MixtureCase& c : kMixtures) {
      name<T>("mixture", names_of(Scales{})[code]);
      add_all(run_mixture<T>(kernels, c, code, moderate, false));
    }
  }
}

template <class T>
void run_all(const Kernels& kernels, const std::vector<std::pair<Type, Type>>& types) {
  int turn = 0;  // what is not looped over takes turns: with each other factor all of it is met
  for (const Shape& shape : kShapes) {
    for (const auto& [type, other] : types) {
      const auto next = [&, type = type, other = other](int code, int variant) {
        ++turn;
        const Type data = turn % 2 ? other : Type(FloatingTypes::kCount + turn / 2 % kIntegers);
        return Case{shape, type, other, data, code, variant, kInputs[turn % 7], kInputs[turn % 5], turn};
      };
      for (int code = 0; code < Scales::kCount; ++code) {
        for (const int variant : {0, 1, 2, 4, 5, 8, 9, 10, 16, 26, 32, 41, 56, 58, 64, 65, 105})
          latent<T>(kernels, next(code, variant));
      }
      int code = 0;
      any_of(Likelihoods{}, [&](auto tag) {
        using Likelihood = typename decltype(tag)::type;
        constexpr bool kPlain = Likelihood::kParameters == 0 && !Likelihood::kIsCount;
        const int step = kPlain ? 5 : 17;  // of 64 and of 256 combinations
        for (int variant = turn % step; variant < (kPlain ? 64 : 256); variant += step) {
          objective<T, Likelihood>(kernels, next(code, variant));
        }
        return ++code == Likelihoods::kCount;
      });
    }
  }
}

}  // namespace

int main() {
  const InstructionSet* const set = instruction_set();
  if (!set) return std::fputs("this CPU has no fused multiply-add: no kernels to run\n", stderr), 1;
  std::fprintf(stderr, "%s\n", set->name);
  const Type f = kFloat, d = kDouble, h = kHalf, b = kBFloat16;
  run_all<float>(set->in_float, {{f, f}, {h, h}, {b, f}, {f, b}, {h, b}});
  run_all<double>(set->in_double, {{d, d}, {f, d}, {d, h}});
  run_mixtures<float>(set->in_float), run_mixtures<double>(set->in_double);
  uint64_t all = 0xcbf29ce484222325u;
  current = &all;
  for (const auto& [kernel, hash] : hashes) {
    std::printf("%-56s %016llx\n", kernel.c_str(), static_cast<unsigned long long>(hash));
    add(hash);
  }
  std::printf("%-56s %016llx\n", "all", static_cast<unsigned long long>(all));
}
