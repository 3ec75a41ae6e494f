// Spans of numbers, worked on with the widest vectors that the compiler was told of.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define EAST_VECTOR_BYTES 64
#elif defined(__AVX__)
#define EAST_VECTOR_BYTES 32
#else
#define EAST_VECTOR_BYTES 16
#endif

namespace east {

// Numbers by which memory is asked for ahead of its use, into the second-level cache. The processor's own prefetchers stop at
// the end of a page, and a plane is read by several short passes that leave memory idle in between.
constexpr int64_t prefetch_distance = 4096;

template <typename T>
inline void prefetch(const T* at) {
    __builtin_prefetch(at + prefetch_distance, 0, 2);
}

template <typename T>
inline void prefetch_for_writing(const T* at) {
    __builtin_prefetch(at + prefetch_distance, 1, 2);
}

// A vector of T that may lie at any address of a T.
template <typename T>
struct Vector {
    typedef T Register __attribute__((vector_size(EAST_VECTOR_BYTES)));
    typedef T Unaligned __attribute__((vector_size(EAST_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    static constexpr int64_t lanes = EAST_VECTOR_BYTES / sizeof(T);

    static inline Register load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
    static inline void store(T* to, Register value) { *reinterpret_cast<Unaligned*>(to) = value; }
    // Past the caches, for what is read again only after much else; `to` lies at a multiple of the vector's size.
    static inline void stream(T* to, Register value) {
#if defined(__AVX512F__)
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(value));
#elif defined(__AVX__)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(value));
#else
        store(to, value);
#endif
    }
    static inline Register zero() { return Register{}; }
    static inline Register all(T value) { return Register{} + value; }
    static inline T sum(Register value) {
        T total = 0;
        for (int64_t lane = 0; lane < lanes; ++lane) total += value[lane];
        return total;
    }
};

// Before other threads read what was streamed.
inline void finish_streaming() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}

template <typename T>
inline void fill(T* to, T value, int64_t count) {
    for (int64_t k = 0; k < count; ++k) to[k] = value;
}

// to = factor * from
template <typename T>
inline void set_scaled(T* __restrict to, const T* __restrict from, T factor, int64_t count) {
    using V = Vector<T>;
    int64_t k = 0;
    const auto factors = V::all(factor);
    for (; k + V::lanes <= count; k += V::lanes) V::store(to + k, factors * V::load(from + k));
    for (; k < count; ++k) to[k] = factor * from[k];
}

// to += factor * from
template <typename T>
inline void add_scaled(T* __restrict to, const T* __restrict from, T factor, int64_t count) {
    using V = Vector<T>;
    int64_t k = 0;
    const auto factors = V::all(factor);
    for (; k + V::lanes <= count; k += V::lanes) {
        prefetch(from + k);
        V::store(to + k, V::load(to + k) + factors * V::load(from + k));
    }
    for (; k < count; ++k) to[k] += factor * from[k];
}

// to += value
template <typename T>
inline void add_constant(T* to, T value, int64_t count) {
    for (int64_t k = 0; k < count; ++k) to[k] += value;
}

template <typename T>
inline double sum(const T* from, int64_t count) {
    using V = Vector<T>;
    int64_t k = 0;
    auto even = V::zero(), odd = V::zero();
    for (; k + 2 * V::lanes <= count; k += 2 * V::lanes) {
        even += V::load(from + k);
        odd += V::load(from + k + V::lanes);
    }
    double total = V::sum(even + odd);
    for (; k < count; ++k) total += from[k];
    return total;
}

template <typename T>
inline double dot(const T* left, const T* right, int64_t count) {
    using V = Vector<T>;
    int64_t k = 0;
    auto even = V::zero(), odd = V::zero();
    for (; k + 2 * V::lanes <= count; k += 2 * V::lanes) {
        even += V::load(left + k) * V::load(right + k);
        odd += V::load(left + k + V::lanes) * V::load(right + k + V::lanes);
    }
    double total = V::sum(even + odd);
    for (; k < count; ++k) total += left[k] * right[k];
    return total;
}

}  // namespace east
