#pragma once

#include <torch/headeronly/util/Exception.h>

// Raises an error of Python's class `kind` (ValueError, TypeError, IndexError or OutOfMemoryError)
// if a condition does not hold. The stable ABI only knows RuntimeError, so the message carries the
// class, and db3kd/ops/extension.py raises it.
#define DB3KD_CHECK(kind, condition, ...) STD_TORCH_CHECK(condition, #kind ": ", __VA_ARGS__)
