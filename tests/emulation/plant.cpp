#include "plant.h"

#include "memory.h"

namespace emulation {

int planted_fault = 0;

extern "C" __attribute__((visibility("default"))) void emulation_plant(int fault) {
  planted_fault = fault;
}

extern "C" __attribute__((visibility("default"))) void emulation_begin() { watch_allocations(); }

}  // namespace emulation
