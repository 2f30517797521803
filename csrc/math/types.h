// Lists of types: the likelihoods, the scales of the posterior, the types that tensors store. A member's code, by which
// operators and kernels name it, is its place in the list; nothing else repeats the list.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class... Members>
struct Types {
  static constexpr int kCount = sizeof...(Members);
};

// One list after the other: the first one's members keep their codes.
template <class First, class Second>
struct Join;
template <class... First, class... Second>
struct Join<Types<First...>, Types<Second...>> {
  using Type = Types<First..., Second...>;
};
template <class First, class Second>
using Joined = typename Join<First, Second>::Type;

// A type as a value, to hand to a function.
template <class T>
struct Tag {
  using type = T;
};

// f(Tag<Member>()) for the member with this code, which must be one of the list's.
PYVAE_ANY_SPACE
template <class First, class... Rest, class Function>
PYVAE_HD decltype(auto) visit(Types<First, Rest...>, int code, const Function& f) {
  if constexpr (sizeof...(Rest) > 0) {
    if (code != 0) return visit(Types<Rest...>{}, code - 1, f);
  }
  return f(Tag<First>{});
}

// Calls f(Tag<Member>()) for one member after the other until it returns true; whether it did.
template <class... Members, class Function>
bool any_of(Types<Members...>, const Function& f) {
  return (f(Tag<Members>{}) || ...);
}

template <class Wanted, class List>
constexpr int kCode = -1;  // not a member
template <class Wanted, class First, class... Rest>
constexpr int kCode<Wanted, Types<First, Rest...>> =
    __is_same(Wanted, First)            ? 0
    : kCode<Wanted, Types<Rest...>> < 0 ? -1
                                        : 1 + kCode<Wanted, Types<Rest...>>;

// What the members say of themselves, in the order of their codes: names_of(list)[code], for one.
template <class Value, int kCount>
struct Table {
  Value values[kCount];
  constexpr Value operator[](int64_t code) const { return values[code]; }
  constexpr const Value* begin() const { return values; }
  constexpr const Value* end() const { return values + kCount; }
};

template <class... Members>
constexpr Table<const char*, sizeof...(Members)> names_of(Types<Members...>) {
  return {{Members::kName...}};
}

}  // namespace PYVAE_ISA
}  // namespace pyvae
