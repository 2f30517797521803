// Where the shared memory of all kernels is: __shared__ arrays are thread-local variables, and those of one library lie
// in one segment.
#pragma once

#include <link.h>

#include <cstddef>

namespace emulated {

struct Segment {
  char* begin = nullptr;
  size_t size = 0;
};

inline thread_local char anchor;  // a variable of this library, to know its segment by

inline int find_segment(dl_phdr_info* info, size_t, void* found) {
  char* const begin = static_cast<char*>(info->dlpi_tls_data);
  for (int i = 0; begin && i < info->dlpi_phnum; ++i) {
    const size_t size = info->dlpi_phdr[i].p_memsz;
    if (info->dlpi_phdr[i].p_type == PT_TLS && &anchor >= begin && &anchor < begin + size) {
      *static_cast<Segment*>(found) = {begin, size};
      return 1;
    }
  }
  return 0;
}

// The calling thread's.
inline Segment thread_local_segment() {
  anchor = 0;  // it is made when it is first used
  Segment found;
  dl_iterate_phdr(find_segment, &found);
  return found;
}

}  // namespace emulated
