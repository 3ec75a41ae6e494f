// Included ahead of each kernel's source: its functions, instead of being exported, enter a table that the player looks them
// up in.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "arithmetic.h"

namespace tape {

struct Kernel {
    void (*call)(const void* arguments);
    size_t argument_bytes;
};

inline std::map<std::string, Kernel>& kernel_table() {
    static std::map<std::string, Kernel> table;
    return table;
}

}  // namespace tape

#define TABLE_ENTRY(name, suffix, Arguments, function)                                 \
    static const bool has_##name##_##suffix = [] {                                     \
        const auto call = [](const void* arguments) {                                  \
            const east::StandardArithmetic standard;                                   \
            east::function(*static_cast<const Arguments*>(arguments));                 \
        };                                                                             \
        return tape::kernel_table().emplace(#name "_" #suffix, tape::Kernel{call, sizeof(Arguments)}).second; \
    }();

// A training computes in float32, but for a few sums: only where they are is the other type worth the time to compile it.
#undef EAST_KERNEL
#undef EAST_KERNEL_OF_VALUES
#ifdef TABLE_OF_BOTH_TYPES
#define EAST_KERNEL_OF_VALUES(name, Arguments, function)         \
    TABLE_ENTRY(name, f32, east::Arguments<float>, function)     \
    TABLE_ENTRY(name, f64, east::Arguments<double>, function)
#else
#define EAST_KERNEL_OF_VALUES(name, Arguments, function) TABLE_ENTRY(name, f32, east::Arguments<float>, function)
#endif
#define EAST_KERNEL(name, Arguments, function)                   \
    EAST_KERNEL_OF_VALUES(name, Arguments, function)             \
    TABLE_ENTRY(name, bf16, east::Arguments<east::Bfloat16>, function)
