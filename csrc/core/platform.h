#pragma once

// Macros that let the host compiler and nvcc share one definition. Nothing in core/ depends on
// torch.

#if defined(__CUDACC__)
#define DB3KD_HOST_DEVICE __host__ __device__ __forceinline__
#else
// Forced inlining gives every instruction-set clone of a CPU loop its own copy of the scalar math.
#define DB3KD_HOST_DEVICE inline __attribute__((always_inline))
#endif
