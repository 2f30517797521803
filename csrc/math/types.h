// Lists of types: the likelihoods, the posterior's scales, the dtypes that tensors store. A member's code, by which
// operators and kernels refer to it, is its index in the list; nothing else repeats the list.
#pragma once

#include "math/platform.h"

namespace pyvae {
inline namespace PYVAE_ISA {

template <class... Members>
struct Types {
  static constexpr int kCount = sizeof...(Members);
};

// Concatenates two lists: the first list's members keep their codes.
template <class First, class Second>
struct Join;
template <class... First, class... Second>
struct Join<Types<First...>, Types<Second...>> {
  using Type = Types<First..., Second...>;
};
template <class First, class Second>
using Joined = typename Join<First, Second>::Type;

// A type as a value, to pass to a function.
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

// Calls f(Tag<Member>()) for each member until it returns true; returns whether it did.
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

// A property of each member, in the order of their codes, for example names_of(list)[code].
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
