// Blocks run one after another; the threads of a block are fibers on the thread that launches, and each runs until it
// must wait for others. One that never waits costs a function call.
//
// PYVAE_EMULATED_ORDER=forward|reverse|shuffled: the order in which blocks run and threads take turns. A result that
// depends on it has a race behind it.
#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" long emulated_launches, emulated_translated;
long emulated_launches = 0;    // for tests, which must know that kernels have run
long emulated_translated = 0;  // and how many of them as their PTX

namespace emulated {
namespace {

// ---- the state of the one kernel that is running --------------------------------------------------------------------

struct Thread {
  unsigned number;  // in its block
  bool waiting;
  Fiber* fiber;
  // What it waits for, with what, and the answer:
  const char* operation;
  Place place;
  unsigned source;
  uint64_t value, answer;
};

constexpr unsigned kMaxThreads = 1024;

std::mutex launching;
const void* kernel;
void (*body)(void*);
void* data;

Thread threads[kMaxThreads];
unsigned count, started, exited;
unsigned order[kMaxThreads];  // in which threads begin
Thread* running = nullptr;

std::deque<Thread*> ready;  // those that need wait no longer

struct Meeting {
  unsigned arrived;
  const Thread* first;
};
Meeting of_block, of_warps[kMaxThreads / kWarp];

std::deque<Fiber> fibers;  // a deque: they stay where they are
std::vector<Fiber*> idle;
Fiber launcher;

// ---- messages -------------------------------------------------------------------------------------------------------

void print(const char* what) {
  Dl_info info{};
  char* name = nullptr;
  if (kernel && dladdr(kernel, &info) && info.dli_saddr == kernel) {
    name = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, nullptr);
  }
  std::fprintf(stderr, "emulated CUDA: %s\n  kernel %s, block %u of %u, %u of %u threads have exited\n", what,
               name ? name : "(of unknown name)", blockIdx.x, gridDim.x, exited, count);
}

void print(const Thread& t) {
  std::fprintf(stderr, "  thread %u: %s in %s (%s:%d)\n", t.number, t.operation, t.place.function, t.place.file,
               t.place.line);
}

bool same_place(const Thread& a, const Thread& b) {  // a file may be named by several strings
  return a.place.line == b.place.line && !std::strcmp(a.place.file, b.place.file);
}

[[noreturn]] void fail_deadlock() {
  print("threads wait for others that will not come");
  const Thread* last = nullptr;
  for (unsigned i = 0, lines = 0; i < count && lines < 16; ++i) {
    if (!threads[i].waiting || (last && same_place(*last, threads[i]))) continue;
    last = &threads[i];
    print(*last);
    ++lines;
  }
  std::abort();
}

// ---- order ----------------------------------------------------------------------------------------------------------

char chosen_order() {  // its first letter
  static const char* const given = std::getenv("PYVAE_EMULATED_ORDER");
  static const char first = given ? given[0] : 'f';
  return first;
}

// The i-th of n to have its turn.
uint64_t turn(uint64_t i, uint64_t n) {
  if (chosen_order() == 'f') return i;
  if (chosen_order() == 'r') return n - 1 - i;
  uint64_t step = n * 5 / 8 + 1;
  while (std::gcd(step, n) != 1) ++step;
  return (i * step + n / 3) % n;
}

// ---- fibers ---------------------------------------------------------------------------------------------------------

void run_unstarted_threads();

void go_on(Thread& thread) {
  running = &thread;
  threadIdx = thread.number;
  thread.waiting = false;
}

// Leaves the current fiber: for a thread that may go on, or for those that have not begun, or for the launcher.
void give_way() {
  if (!ready.empty()) {
    go_on(*ready.front());
    ready.pop_front();
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
      go_on(threads[order[started++]]);
      running->fiber = self;
      body(data);
      ++exited;
    }
    idle.push_back(self);
    give_way();
  }
}

// Its turn is before that of all who wait for theirs: threads that have met run on while others are far behind, which
// finds a barrier that is missing between two uses of the same memory. Shuffled: after them.
void make_ready(Thread& thread) { chosen_order() == 's' ? ready.push_back(&thread) : ready.push_front(&thread); }

// ---- shared memory --------------------------------------------------------------------------------------------------

struct Segment {
  char* begin;
  size_t size;
};
thread_local char anchor;  // __shared__ arrays are thread-local, too, and those of one library lie in one segment

// The calling thread's.
Segment find_shared() {
  anchor = 0;  // the segment is made when it is first used
  Segment found{};
  const auto find = [](dl_phdr_info* info, size_t, void* found) {
    char* const begin = static_cast<char*>(info->dlpi_tls_data);
    for (int i = 0; begin && i < info->dlpi_phnum; ++i) {
      const size_t size = info->dlpi_phdr[i].p_memsz;
      if (info->dlpi_phdr[i].p_type != PT_TLS || &anchor < begin || &anchor >= begin + size) continue;
      *static_cast<Segment*>(found) = {begin, size};
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(find, &found);
  return found;
}

}  // namespace

// ---- translations ---------------------------------------------------------------------------------------------------

alignas(16) unsigned char translated_shared[kSharedMemory];

static std::unordered_map<const void*, Translation>& translations() {
  static std::unordered_map<const void*, Translation> all;
  return all;
}

const Translation* translation_of(const void* address) {
  const auto found = translations().find(address);
  return found == translations().end() ? nullptr : &found->second;
}

extern "C" void emulated_translate(const void* address, void (*in_its_place)(void*), void (*block_ended)()) {
  translations()[address] = {in_its_place, block_ended};
}

// ---- what cuda_runtime.h calls --------------------------------------------------------------------------------------

void run(dim3 grid, dim3 block, const void* kernel_address, void (*kernel_body)(void*), void* kernel_data,
         void (*block_ended)()) {
  const std::lock_guard<std::mutex> lock(launching);
  kernel = kernel_address, body = kernel_body, data = kernel_data;
  gridDim = grid, blockDim = block, count = block.x;
  for (unsigned i = 0; i < count; ++i) threads[i].number = i, order[i] = unsigned(turn(i, count));
  Fiber::current = &launcher;
  const Segment shared = find_shared();
  const bool is_translated = translation_of(kernel_address) != nullptr;
  for (unsigned i = 0; i < grid.x; ++i) {
    blockIdx = unsigned(turn(i, grid.x));
    std::memset(shared.begin, 0xff, shared.size);  // NaN: what the block before left there is not for this one
    if (is_translated) std::memset(translated_shared, 0xff, kSharedMemory);
    started = exited = 0;
    give_way();
    if (exited != count) fail_deadlock();
    if (block_ended) block_ended();
  }
  ++emulated_launches;
  emulated_translated += is_translated;
  kernel = nullptr;
}

uint64_t meet(Group group, uint64_t value, unsigned source, const char* operation, Place place) {
  const bool whole = group == Group::kBlock;
  Thread& me = *running;
  me.operation = operation, me.place = place, me.value = value, me.source = source;
  Thread* const members = whole ? threads : &threads[me.number / kWarp * kWarp];
  const unsigned size = whole ? count : kWarp;
  Meeting& meeting = whole ? of_block : of_warps[me.number / kWarp];
  if (meeting.arrived == 0) meeting.first = &me;
  if (!same_place(me, *meeting.first)) {
    print("threads meet at different places");
    print(*meeting.first);
    print(me);
    std::abort();
  }
  if (++meeting.arrived < size) {
    me.waiting = true;
    give_way();
    return me.answer;
  }
  meeting.arrived = 0;
  for (unsigned i = 0; i < size; ++i) {
    Thread& other = members[whole ? order[i] : i];
    other.answer = members[other.source].value;
    if (&other != &me) make_ready(other);
  }
  return me.answer;
}

void fail(const char* what, Place place) {
  print(what);
  running->operation = "", running->place = place;
  print(*running);
  std::abort();
}

}  // namespace emulated
