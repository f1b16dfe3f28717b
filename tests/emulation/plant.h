#pragma once

// The planted fault that is active, 0 for none; see FAULTS in build.py.
namespace emulation {
extern int planted_fault;
}

#define PLANTED(number) (emulation::planted_fault == (number))
