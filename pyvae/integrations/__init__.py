"""One-line patches of other libraries, each a module by the library's name, which imports it."""
