// Functions that take turns on one thread, each with a stack of its own.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdlib>

namespace emulated {

// The launching thread is one, too; the others begin with a function that never returns. Leaving a fiber by resume() or
// begin() of another, it goes on there when it is resumed itself.
class Fiber {
 public:
  static inline Fiber* current = nullptr;

  // The built-in jump takes a few nanoseconds, where swapcontext makes two system calls. It must stand in another
  // function than setjmp.
  [[gnu::noinline]] void resume() {
    Fiber& from = *current;
    current = this;
    if (!__builtin_setjmp(from.context)) jump(context);
  }

  [[gnu::noinline]] void begin(void (*function)()) {
    make_stack(function);
    Fiber& from = *current;
    current = this;
    if (!__builtin_setjmp(from.context)) setcontext(&start);
  }

 private:
  static constexpr size_t kStack = size_t(256) << 10, kGuard = 4096;

  [[noreturn, gnu::noinline]] static void jump(void** to) { __builtin_longjmp(to, 1); }

  void make_stack(void (*function)()) {
    void* const stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, kGuard, PROT_NONE) || getcontext(&start)) std::abort();
    start.uc_stack.ss_sp = stack;
    // Not all from the same offset: their tops would share a few lines of the cache.
    static size_t made = 0;
    start.uc_stack.ss_size = kStack - made++ % 64 * 1088;
    start.uc_link = nullptr;
    makecontext(&start, function, 0);
  }

  void* context[5];  // of __builtin_setjmp
  ucontext_t start;
};

}  // namespace emulated
