#include <cuda_runtime_api.h>

#include <cassert>
#include <cstdint>
#include <string>

// Kernels with one fault each, given by their names; the emulation must report it.

namespace {

__global__ void race_between_blocks(float* data) { data[0] = static_cast<float>(blockIdx.x); }

__global__ void race_of_bytes(std::uint8_t* data) {
  data[threadIdx.x] = 1;
  if (threadIdx.x > 0) data[threadIdx.x - 1] = 2;
}

__global__ void race_behind_a_barrier_of_the_warp(float* data) {
  __shared__ float value[1];
  if (threadIdx.x == 0) value[0] = 1.0f;
  __syncwarp();
  data[threadIdx.x] = value[0];  // threads of the second warp have not met the first
}

__global__ void barrier_that_some_never_reach(float* data) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncwarp();
    data[threadIdx.x] = 0.0f;
  }
}

__global__ void barrier_in_another_shuffle(int* data) {
  if (threadIdx.x % 2 == 0) {
    __syncwarp();
  } else {
    data[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
  }
}

__global__ void shuffle_from_outside(int* data) {
  if (threadIdx.x < 16) data[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 16);
}

__global__ void misaligned(float* data) { reinterpret_cast<float4*>(data + 1)->x = 1.0f; }

__global__ void overflow(int* data) { data[1] = data[0] * 2; }

__global__ void beyond_the_end(float* data, int size) { data[size] = 1.0f; }

__global__ void beyond_shared_memory(float* data) {
  __shared__ float value[32];
  value[threadIdx.x] = data[threadIdx.x];
}

__global__ void right(int* data) {
  __shared__ int value[64];
  value[threadIdx.x] = threadIdx.x;
  __syncthreads();
  data[threadIdx.x] = value[63 - threadIdx.x];
  __syncthreads();
  value[threadIdx.x] = __shfl_xor_sync(0xffffffffu, value[threadIdx.x], 1);
  if (data[threadIdx.x] < 0) data[threadIdx.x] = value[threadIdx.x];
}

}  // namespace

// Runs one of them on `floats` floats and returns the emulation's report.
extern "C" __attribute__((visibility("default"))) const char* emulation_run_faulty(const char* name,
                                                                                   float* data,
                                                                                   int floats) {
  static std::string found;
  const std::string kernel = name;
  auto* numbers = reinterpret_cast<int*>(data);
  const auto* last = data + floats;
  if (kernel == "race_between_blocks") {
    race_between_blocks<<<4, 1, 0, nullptr>>>(data);
  } else if (kernel == "race_of_bytes") {
    race_of_bytes<<<1, 64, 0, nullptr>>>(reinterpret_cast<std::uint8_t*>(data));
  } else if (kernel == "race_behind_a_barrier_of_the_warp") {
    race_behind_a_barrier_of_the_warp<<<1, 64, 0, nullptr>>>(data);
  } else if (kernel == "barrier_that_some_never_reach") {
    barrier_that_some_never_reach<<<1, 64, 0, nullptr>>>(data);
  } else if (kernel == "barrier_in_another_shuffle") {
    barrier_in_another_shuffle<<<1, 32, 0, nullptr>>>(numbers);
  } else if (kernel == "shuffle_from_outside") {
    shuffle_from_outside<<<1, 32, 0, nullptr>>>(numbers);
  } else if (kernel == "misaligned") {
    misaligned<<<1, 1, 0, nullptr>>>(data);
  } else if (kernel == "overflow") {
    numbers[0] = 2147483647;
    overflow<<<1, 1, 0, nullptr>>>(numbers);
  } else if (kernel == "beyond_the_end") {
    beyond_the_end<<<1, 1, 0, nullptr>>>(data, static_cast<int>(last - data));
  } else if (kernel == "beyond_shared_memory") {
    beyond_shared_memory<<<1, 64, 0, nullptr>>>(data);
  } else if (kernel == "too_many_threads") {
    right<<<1, 2048, 0, nullptr>>>(numbers);
  } else if (kernel == "too_much_shared_memory") {
    right<<<1, 64, 49 * 1024, nullptr>>>(numbers);
  } else if (kernel == "right") {
    right<<<1, 64, 0, nullptr>>>(numbers);
  } else {
    found = "no such kernel";
    return found.c_str();
  }
  found = emulation::take_error();
  return found.c_str();
}
