#pragma once

// Compiles a function for several instruction sets; the best one is selected when the extension is
// loaded. All clones give the same bits: sums use a fixed number of lanes, and the build forbids
// contracting a multiplication and an addition.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && \
    defined(__gnu_linux__)
#define DB3KD_HAS_CLONES 1
#define DB3KD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DB3KD_HAS_CLONES 0
#define DB3KD_CLONES
#endif
