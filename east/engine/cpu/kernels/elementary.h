// Exponential and logarithm, by the same operations everywhere: a library's may differ in the last bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace east {

constexpr double ln2_high = 0x1.62e42fefa38p-1;  // its last bits are zero, so that small multiples are exact
constexpr double ln2_low = 0x1.ef35793c7673p-45;

// e^x for |x| <= 700 and beyond it the value at the nearer end: x = k ln 2 + r, and the series of e^r up to r^13 / 13!.
inline double exponential(double x) {
    constexpr double round_to_whole = 0x1.8p52, most = 700;
    const double clamped = x > most ? most : (x < -most ? -most : x);
    const double shifted = std::fma(clamped, 0x1.71547652b82fep0, round_to_whole);
    const double k = shifted - round_to_whole;
    const double r = std::fma(-k, ln2_low, std::fma(-k, ln2_high, clamped));
    double sum = 1.0 / 6227020800.0;
    sum = std::fma(sum, r, 1.0 / 479001600.0);
    sum = std::fma(sum, r, 1.0 / 39916800.0);
    sum = std::fma(sum, r, 1.0 / 3628800.0);
    sum = std::fma(sum, r, 1.0 / 362880.0);
    sum = std::fma(sum, r, 1.0 / 40320.0);
    sum = std::fma(sum, r, 1.0 / 5040.0);
    sum = std::fma(sum, r, 1.0 / 720.0);
    sum = std::fma(sum, r, 1.0 / 120.0);
    sum = std::fma(sum, r, 1.0 / 24.0);
    sum = std::fma(sum, r, 1.0 / 6.0);
    sum = std::fma(sum, r, 0.5);
    sum = std::fma(sum, r, 1.0);
    sum = std::fma(sum, r, 1.0);
    // The last bits of `shifted` are k: they go where the exponent of a double is.
    uint64_t bits, scale;
    std::memcpy(&bits, &shifted, sizeof(bits));
    scale = (bits + 1023) << 52;
    double power;
    std::memcpy(&power, &scale, sizeof(power));
    return x != x ? x : sum * power;
}

// 1 / (1 + e^-x)
inline double sigmoid(double x) { return 1 / (1 + exponential(-x)); }

// The natural logarithm of a normal number x = 2^k m with m in [1/sqrt(2), sqrt(2)): with s = (m - 1) / (m + 1), the series of
// 2 artanh(s) up to s^23 / 23. A NaN stays one.
inline double logarithm(double x) {
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    constexpr uint64_t root_half = 0x3fe6a09e667f3bcd;
    const int64_t k = int64_t(bits - root_half) >> 52;
    bits -= uint64_t(k) << 52;
    double m;
    std::memcpy(&m, &bits, sizeof(m));
    const double s = (m - 1) / (m + 1), square = s * s;
    double sum = 0;
    for (int power = 23; power > 1; power -= 2) sum = std::fma(sum, square, 1.0 / power);
    const double of_m = std::fma(2 * s * square, sum, 2 * s);
    return x != x ? x : std::fma(double(k), ln2_high, std::fma(double(k), ln2_low, of_m));
}

}  // namespace east
