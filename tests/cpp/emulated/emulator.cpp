// Blocks run one after another; the threads of a block are fibers on the thread that launches, and each runs until it
// must wait for others. One that never waits costs a function call.
//
// PYVAE_EMULATED_ORDER=forward|reverse|shuffled: the order in which blocks run and threads take turns. A result that
// depends on it has a race behind it.
#include "emulator.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <numeric>
#include <vector>

#include "fiber.h"
#include "segment.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

extern "C" long emulated_launches;
long emulated_launches = 0;  // for tests, which must know that kernels have run

namespace emulated {
namespace {

// ---- the state of the one kernel that is running --------------------------------------------------------------------

enum class State { kUnstarted, kRunning, kWaiting, kExited };

struct Thread {
  unsigned number;  // in its block
  uint3 index;
  State state;
  Fiber* fiber;
  // What it waits for, with what, and the answer:
  const char* operation;
  Place place;
  unsigned mask, source;
  uint64_t value;
  Exchanged answer;
};

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kWarp = 32;

std::mutex launching;
const void* kernel;
void (*body)(void*);
void* data;

Thread threads[kMaxThreads];
unsigned count, started, exited;
unsigned order[kMaxThreads];  // in which threads begin
Thread* running = nullptr;

Thread* ready[kMaxThreads];  // a ring of those that need wait no longer
unsigned ready_first, ready_count;

unsigned block_arrived, block_votes;
const Thread* block_first;  // to arrive

struct Meeting {
  unsigned mask, arrived;  // lanes
};
std::vector<Meeting> meetings[kMaxThreads / kWarp];  // of each warp, under way

std::deque<Fiber> fibers;  // a deque: they stay where they are
std::vector<Fiber*> idle;
Fiber launcher;

// ---- messages -------------------------------------------------------------------------------------------------------

void print_place() {
  Dl_info info{};
  char* name = nullptr;
  if (kernel && dladdr(kernel, &info) && info.dli_saddr == kernel) {
    name = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr);
  }
  std::fprintf(stderr, "  kernel %s, block %u of %u\n", name ? name : "(of unknown name)", blockIdx.x, gridDim.x);
}

void print_thread(const Thread& t) {
  std::fprintf(stderr, "  thread %u: %s, mask %08x, in %s (%s:%d)\n", t.number, t.operation, t.mask, t.place.function,
               t.place.file, t.place.line);
}

// A file may be named by several strings.
bool same(const char* a, const char* b) { return a == b || !std::strcmp(a, b); }

bool same_place(const Thread& a, const Thread& b) {
  return a.place.line == b.place.line && same(a.operation, b.operation) && same(a.place.file, b.place.file);
}

[[noreturn]] void fail_meeting(const char* what, const Thread& a, const Thread& b) {
  std::fprintf(stderr, "emulated CUDA: %s\n", what);
  print_place();
  print_thread(a);
  print_thread(b);
  std::abort();
}

[[noreturn]] void fail_deadlock() {
  std::fprintf(stderr, "emulated CUDA: threads wait for others that will not come; %u of %u have exited\n", exited,
               count);
  print_place();
  const Thread* last = nullptr;
  for (unsigned i = 0, lines = 0; i < count && lines < 16; ++i) {
    if (threads[i].state != State::kWaiting || (last && same_place(*last, threads[i]))) continue;
    last = &threads[i];
    print_thread(*last);
    ++lines;
  }
  std::abort();
}

// ---- order ----------------------------------------------------------------------------------------------------------

enum class Order { kForward, kReverse, kShuffled };

Order chosen_order() {
  static const char* const given = std::getenv("PYVAE_EMULATED_ORDER");
  static const char first = given ? given[0] : 'f';
  return first == 'f' ? Order::kForward : first == 'r' ? Order::kReverse : Order::kShuffled;
}

// The i-th of n to have its turn.
uint64_t turn(uint64_t i, uint64_t n) {
  if (chosen_order() == Order::kForward) return i;
  if (chosen_order() == Order::kReverse) return n - 1 - i;
  uint64_t step = n * 5 / 8 + 1;
  while (std::gcd(step, n) != 1) ++step;
  return (i * step + n / 3) % n;
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

void run_unstarted_threads();

// Leaves the current fiber: for a thread that may go on, or for those that have not begun, or for the launcher.
void give_way() {
  if (ready_count > 0) {
    running = ready[ready_first];
    ready_first = (ready_first + 1) % kMaxThreads;
    --ready_count;
    running->state = State::kRunning;
    threadIdx = running->index;
    running->fiber->resume();
  } else if (started == count) {
    launcher.resume();
  } else if (idle.empty()) {
    fibers.emplace_back().begin(run_unstarted_threads);
  } else {
    Fiber& next = *idle.back();
    idle.pop_back();
    next.resume();
  }
}

// Where every fiber begins, and where it stays between blocks.
void run_unstarted_threads() {
  Fiber* const self = Fiber::current;
  for (;;) {
    while (started < count) {
      running = &threads[order[started++]];
      running->state = State::kRunning;
      running->fiber = self;
      threadIdx = running->index;
      body(data);
      running->state = State::kExited;
      ++exited;
    }
    idle.push_back(self);
    give_way();
  }
}

// Its turn is before that of all who wait for theirs: threads that have met run on while others are far behind, which
// finds a barrier that is missing between two uses of the same memory. Shuffled: after them.
void make_ready(Thread& thread) {
  if (chosen_order() == Order::kShuffled) {
    ready[(ready_first + ready_count++) % kMaxThreads] = &thread;
  } else {
    ready_first = (ready_first + kMaxThreads - 1) % kMaxThreads;
    ready[ready_first] = &thread;
    ++ready_count;
  }
}

void wait() {
  running->state = State::kWaiting;
  give_way();
}

// ---- blocks ---------------------------------------------------------------------------------------------------------

void run_block(Segment shared) {
  std::memset(shared.begin, 0xff, shared.size);  // NaN: what the block before left there is not for this one
  started = exited = ready_first = ready_count = block_arrived = block_votes = 0;
  give_way();
  if (exited != count) fail_deadlock();
}

}  // namespace

void run(dim3 grid, dim3 block, const void* kernel_address, void (*kernel_body)(void*), void* kernel_data) {
  const std::lock_guard<std::mutex> lock(launching);
  kernel = kernel_address, body = kernel_body, data = kernel_data;
  gridDim = grid, blockDim = block;
  count = block.x * block.y * block.z;
  for (unsigned i = 0; i < count; ++i) {
    order[i] = unsigned(turn(i, count));
    threads[i].number = i;
    threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  Fiber::current = &launcher;
  const Segment shared = thread_local_segment();
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = turn(i, blocks);
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block(shared);
  }
  ++emulated_launches;
  kernel = nullptr;
}

unsigned wait_for_block(bool vote, const char* operation, Place place) {
  Thread& me = *running;
  me.operation = operation, me.place = place, me.mask = 0;
  if (block_arrived == 0) block_first = &me;
  if (!same_place(me, *block_first)) fail_meeting("the threads of a block meet at different places", *block_first, me);
  block_votes += vote;
  if (++block_arrived < count) {
    wait();
    return me.answer.votes;
  }
  const unsigned votes = block_votes;
  block_arrived = block_votes = 0;
  for (unsigned i = 0; i < count; ++i) {
    Thread& other = threads[order[i]];
    other.answer.votes = votes;
    if (&other != &me) make_ready(other);
  }
  return votes;
}

Exchanged wait_for_warp(unsigned mask, uint64_t value, unsigned source, const char* operation, Place place) {
  Thread& me = *running;
  me.operation = operation, me.place = place, me.mask = mask, me.value = value, me.source = source;
  const unsigned base = me.number / kWarp * kWarp, lanes = count - base < kWarp ? count - base : kWarp;
  if (!(mask >> lane() & 1)) fail("a thread is not in its own mask", place);
  if (lanes < kWarp && mask >> lanes) fail("the mask names lanes that the block does not have", place);
  Thread* const warp = threads + base;
  std::vector<Meeting>& under_way = meetings[base / kWarp];
  auto meeting = std::find_if(under_way.begin(), under_way.end(), [mask](const Meeting& m) { return m.mask == mask; });
  if (meeting == under_way.end()) meeting = under_way.insert(meeting, {mask, 0});
  meeting->arrived |= 1u << lane();
  if (meeting->arrived != mask) {
    wait();
    return me.answer;
  }
  under_way.erase(meeting);
  unsigned votes = 0;
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    if (warp[i].mask != mask || !same_place(warp[i], me))
      fail_meeting("lanes of a warp meet at different places", warp[i], me);
    if (!(mask >> warp[i].source & 1))
      fail_meeting("a lane wants the value of one that is not in the mask", warp[i], me);
    votes |= unsigned(warp[i].value != 0) << i;
  }
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    warp[i].answer = {warp[warp[i].source].value, votes};
    if (&warp[i] != &me) make_ready(warp[i]);
  }
  return me.answer;
}

unsigned lane() { return running->number % kWarp; }

void fail(const char* what, Place place) {
  std::fprintf(stderr, "emulated CUDA: %s\n", what);
  print_place();
  std::fprintf(stderr, "  thread %u in %s (%s:%d)\n", running ? running->number : 0, place.function, place.file,
               place.line);
  std::abort();
}

}  // namespace emulated
