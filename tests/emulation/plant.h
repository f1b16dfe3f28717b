#pragma once

// Which planted fault is switched on, 0 for none: see FAULTS of build.py.
namespace emulation {
extern int planted_fault;
}

#define PLANTED(number) (emulation::planted_fault == (number))
