// Groups of images, and the operations that every sum of a step is made of: docs/arithmetic.md.
//
// An activation is [channels, groups, height, width, 32]: the 32 numbers of a group of images lie side by side, one lane an
// image. Whatever the registers of a processor, a lane is computed as if it were alone.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define EAST_VECTOR_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#define EAST_VECTOR_BYTES 32
#else
#define EAST_VECTOR_BYTES 16
#endif

// However a compiler came by such flags: with them it would compute other numbers than docs/arithmetic.md says.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__) || \
    defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__) || (defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__)
#error "the compiler is told to change arithmetic, as by -ffast-math"
#endif

namespace east {

constexpr int32_t lanes = 32;             // images of a group
constexpr int32_t segment_positions = 64;  // of a plane, whose products are summed before the lanes are

inline int32_t groups_of(int32_t batch) { return (batch + lanes - 1) / lanes; }

// Whole rows of a plane that make a segment.
inline int32_t segment_rows(int32_t width) { return width < segment_positions ? segment_positions / width : 1; }
inline int32_t segments_of(int32_t height, int32_t width) {
    return (height + segment_rows(width) - 1) / segment_rows(width);
}

// Rounds to nearest and keeps denormal numbers, whatever another library has set in this thread; set back at the end.
class StandardArithmetic {
  public:
#if defined(__SSE2__)
    StandardArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~StandardArithmetic() { _mm_setcsr(before_); }

  private:
    unsigned before_;
#elif defined(__aarch64__)
    StandardArithmetic() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
        __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
    }
    ~StandardArithmetic() { __asm__ volatile("msr fpcr, %0" : : "r"(before_)); }

  private:
    uint64_t before_;
#endif
};

// An activation, or a gradient at one, as it may be kept: the upper half of a float.
struct Bfloat16 {
    uint16_t bits;
};

// What numbers kept as T are computed with.
template <typename T>
struct ValueOf {
    typedef T Type;
};
template <>
struct ValueOf<Bfloat16> {
    typedef float Type;
};
template <typename T>
using Value = typename ValueOf<T>::Type;

// A register of the processor, full of numbers that are kept as T.
template <typename T>
struct Vector {
    typedef T Register __attribute__((vector_size(EAST_VECTOR_BYTES)));
    typedef T Unaligned __attribute__((vector_size(EAST_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    static constexpr int32_t width = EAST_VECTOR_BYTES / sizeof(T);
    static constexpr int32_t count = lanes / width;  // registers that a group takes

    static inline Register load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
    static inline void store(T* to, Register value) { *reinterpret_cast<Unaligned*>(to) = value; }
    // Past the caches, for what is read again only after much else; `to` lies at a multiple of the register's size.
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
    // The numbers that are read after these were kept.
    static inline Register rounded(Register value) { return value; }
    // Keep numbers that have been rounded so.
    static inline void store_rounded(T* to, Register value) { store(to, value); }
    static inline void stream_rounded(T* to, Register value) { stream(to, value); }
};

// A float's upper half is a Bfloat16: it is rounded to nearest, ties to even, by integer operations alone. A NaN stays one.
template <>
struct Vector<Bfloat16> {
    typedef Vector<float> V;
    typedef V::Register Register;
    static constexpr int32_t width = V::width, count = V::count;
    typedef uint32_t Words __attribute__((vector_size(EAST_VECTOR_BYTES)));
    typedef uint16_t Halves __attribute__((vector_size(EAST_VECTOR_BYTES / 2)));
    typedef uint16_t Unaligned __attribute__((vector_size(EAST_VECTOR_BYTES / 2), aligned(2), may_alias));

    static inline Register load(const Bfloat16* from) {
#if defined(__AVX512F__)
        return Register(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
#else
        return Register(__builtin_convertvector(*reinterpret_cast<const Unaligned*>(from), Words) << 16);
#endif
    }
    static inline void store(Bfloat16* to, Register value) { store_halves(to, upper(value)); }
    static inline void stream(Bfloat16* to, Register value) { stream_halves(to, upper(value)); }
    static inline void store_rounded(Bfloat16* to, Register value) { store_halves(to, Words(value) >> 16); }
    static inline void stream_rounded(Bfloat16* to, Register value) { stream_halves(to, Words(value) >> 16); }
    static inline Register zero() { return V::zero(); }
    static inline Register all(float value) { return V::all(value); }
    static inline Register rounded(Register value) { return Register(upper(value) << 16); }

  private:
    static inline Words upper(Register value) {
        const Words bits = Words(value), nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        return value == value ? nearest : Words{} + 0x7fc0;
    }
    static inline Halves halves(Words words) {
#if defined(__AVX512F__)
        return Halves(_mm512_cvtepi32_epi16(__m512i(words)));
#else
        return __builtin_convertvector(words, Halves);
#endif
    }
    static inline void store_halves(Bfloat16* to, Words words) { *reinterpret_cast<Unaligned*>(to) = halves(words); }
    static inline void stream_halves(Bfloat16* to, Words words) {
#if defined(__AVX512F__)
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(halves(words)));
#else
        store_halves(to, words);
#endif
    }
};

// A number as it is kept, and what is read of it.
template <typename T>
inline T kept_as(Value<T> value) {
    return value;
}
template <>
inline Bfloat16 kept_as<Bfloat16>(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return {uint16_t(value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0)};
}
inline float value_of(float kept) { return kept; }
inline double value_of(double kept) { return kept; }
inline float value_of(Bfloat16 kept) {
    const uint32_t bits = uint32_t(kept.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}
template <typename T>
inline Value<T> rounded(Value<T> value) {
    return value_of(kept_as<T>(value));
}

// Whether numbers can be streamed from a place on.
template <typename T>
inline bool is_aligned(const T* to) {
    return reinterpret_cast<uintptr_t>(to) % (Vector<T>::width * sizeof(T)) == 0;
}

// Before other threads read what was streamed.
inline void finish_streaming() {
#if defined(__AVX__)
    _mm_sfence();
#endif
}

// a * b + c, rounded once.
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline double fma(double a, double b, double c) { return std::fma(a, b, c); }

typedef Vector<float>::Register Floats;
typedef Vector<double>::Register Doubles;

#if defined(__AVX512F__)
inline Floats fma(Floats a, Floats b, Floats c) { return Floats(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c))); }
inline Doubles fma(Doubles a, Doubles b, Doubles c) { return Doubles(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c))); }
#elif defined(__AVX2__) && defined(__FMA__)
inline Floats fma(Floats a, Floats b, Floats c) { return Floats(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c))); }
inline Doubles fma(Doubles a, Doubles b, Doubles c) { return Doubles(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c))); }
#elif defined(__aarch64__)
inline Floats fma(Floats a, Floats b, Floats c) { return Floats(vfmaq_f32(float32x4_t(c), float32x4_t(a), float32x4_t(b))); }
inline Doubles fma(Doubles a, Doubles b, Doubles c) {
    return Doubles(vfmaq_f64(float64x2_t(c), float64x2_t(a), float64x2_t(b)));
}
#else
inline Floats fma(Floats a, Floats b, Floats c) {
    Floats result;
    for (int i = 0; i < Vector<float>::width; ++i) result[i] = std::fma(a[i], b[i], c[i]);
    return result;
}
inline Doubles fma(Doubles a, Doubles b, Doubles c) {
    Doubles result;
    for (int i = 0; i < Vector<double>::width; ++i) result[i] = std::fma(a[i], b[i], c[i]);
    return result;
}
#endif

// Keeps what was loaded for several operations in a register: compilers would load it for each of them again.
template <typename Register>
inline void hold(Register& value) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(value));
#elif defined(__SSE2__)
    __asm__("" : "+x"(value));
#elif defined(__aarch64__)
    __asm__("" : "+w"(value));
#else
    (void)value;
#endif
}

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

// All spans of numbers below are whole groups: `count` is a multiple of 32.

template <typename T>
inline void fill(T* to, T value, int64_t count) {
    for (int64_t k = 0; k < count; ++k) to[k] = value;
}

// to = factor * from, as a sum that begins at zero
template <typename T>
inline void set_scaled(Value<T>* __restrict to, const T* __restrict from, Value<T> factor, int64_t count) {
    using V = Vector<T>;
    const auto f = V::all(factor);
    for (int64_t k = 0; k < count; k += V::width) {
        prefetch(from + k);
        Vector<Value<T>>::store(to + k, fma(f, V::load(from + k), V::zero()));
    }
}

// to += factor * from
template <typename T>
inline void add_scaled(Value<T>* __restrict to, const T* __restrict from, Value<T> factor, int64_t count) {
    using V = Vector<T>;
    const auto f = V::all(factor);
    for (int64_t k = 0; k < count; k += V::width) {
        prefetch(from + k);
        Vector<Value<T>>::store(to + k, fma(f, V::load(from + k), Vector<Value<T>>::load(to + k)));
    }
}

// What is read of numbers kept as T, in place of them.
template <typename T>
inline void round_all(Value<T>* numbers, int64_t count) {
    if constexpr (!std::is_same_v<T, Value<T>>) {
        using F = Vector<Value<T>>;
        for (int64_t k = 0; k < count; k += F::width) F::store(numbers + k, Vector<T>::rounded(F::load(numbers + k)));
    }
}

// Keeps numbers.
template <typename T>
inline void keep(T* to, const Value<T>* from, int64_t count) {
    for (int64_t k = 0; k < count; k += Vector<T>::width) Vector<T>::store(to + k, Vector<Value<T>>::load(from + k));
}

// The numbers that are kept.
template <typename T>
inline void take(Value<T>* to, const T* from, int64_t count) {
    for (int64_t k = 0; k < count; k += Vector<T>::width) Vector<Value<T>>::store(to + k, Vector<T>::load(from + k));
}

// to += factor * value
template <typename T>
inline void add_constant(T* to, T value, T factor, int64_t count) {
    using V = Vector<T>;
    const auto f = V::all(factor), v = V::all(value);
    for (int64_t k = 0; k < count; k += V::width) V::store(to + k, fma(f, v, V::load(to + k)));
}

template <typename T, int bytes>
inline T halve(const T* numbers) {
    typedef T Half __attribute__((vector_size(bytes / 2), aligned(sizeof(T)), may_alias));
    constexpr int half = bytes / 2 / sizeof(T);
    const Half sum = *reinterpret_cast<const Half*>(numbers) + *reinterpret_cast<const Half*>(numbers + half);
    if constexpr (half == 2) {
        return sum[0] + sum[1];
    } else {
        T next[half];
        std::memcpy(next, &sum, sizeof(sum));
        return halve<T, bytes / 2>(next);
    }
}

// A sum for every lane.
template <typename T>
struct LaneSums {
    using V = Vector<T>;
    typename V::Register part[V::count];

    LaneSums() {
        for (int r = 0; r < V::count; ++r) part[r] = V::zero();
    }
    void store(T* to) const {
        for (int r = 0; r < V::count; ++r) V::store(to + r * V::width, part[r]);
    }
    // The sum over the first `used` lanes: a[i] + a[i + h] for h = 16, 8, 4, 2, 1. Lanes without an image count as zero.
    T total(int32_t used) const {
        typename V::Register kept[V::count];
        if (used < lanes) {
            T all[lanes];
            store(all);
            for (int32_t i = used; i < lanes; ++i) all[i] = 0;
            for (int r = 0; r < V::count; ++r) kept[r] = V::load(all + r * V::width);
        } else {
            for (int r = 0; r < V::count; ++r) kept[r] = part[r];
        }
        for (int half = V::count / 2; half > 0; half /= 2) {
            for (int r = 0; r < half; ++r) kept[r] += kept[r + half];
        }
        T last[V::width];
        V::store(last, kept[0]);
        if constexpr (V::width == 2) {
            return last[0] + last[1];
        } else {
            return halve<T, EAST_VECTOR_BYTES>(last);
        }
    }
};

}  // namespace east

#define EAST_FUNCTION(name, suffix, Arguments, T, function)              \
    extern "C" void east_##name##_##suffix(const east::Arguments<T>* arguments) { \
        const east::StandardArithmetic standard;                         \
        east::function(*arguments);                                      \
    }

// The functions of a kernel as Python calls them: one that works on values alone has two,
#define EAST_KERNEL_OF_VALUES(name, Arguments, function)    \
    EAST_FUNCTION(name, f32, Arguments, float, function)  \
    EAST_FUNCTION(name, f64, Arguments, double, function)

// and one that works on activations, or gradients at them, has another for those that are kept in half the bytes.
#define EAST_KERNEL(name, Arguments, function)         \
    EAST_KERNEL_OF_VALUES(name, Arguments, function) \
    EAST_FUNCTION(name, bf16, Arguments, east::Bfloat16, function)
