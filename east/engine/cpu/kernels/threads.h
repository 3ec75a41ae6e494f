// The threads among which a kernel divides its work: OpenMP's where it is compiled with that, else a pool of its own
// (threads.cpp). Which thread does what decides no number: docs/arithmetic.md.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "arithmetic.h"

namespace east {

#if defined(_OPENMP)

extern "C" int omp_get_max_threads();

// How many threads do a kernel's work.
inline int32_t thread_count() { return std::max(omp_get_max_threads(), 1); }

// One of them.
class Thread {
  public:
    // Does tasks 0 to `count` - 1 together with the others, each by whoever is free; returns when all are done.
    template <typename Task>
    void share(int64_t count, const Task& task) const {
#pragma omp for schedule(dynamic, 1)
        for (int64_t k = 0; k < count; ++k) task(k);
    }
    // Does this thread's part of the tasks, in parts of about equal length, and does not wait for the others.
    template <typename Task>
    void divide(int64_t count, const Task& task) const {
#pragma omp for schedule(static) nowait
        for (int64_t k = 0; k < count; ++k) task(k);
    }
    // Waits until all threads are here.
    void wait() const {
#pragma omp barrier
    }
};

// Calls `body` with each thread; returns when all have done it.
template <typename Body>
inline void in_parallel(const Body& body) {
#pragma omp parallel
    {
        const StandardArithmetic standard;
        body(Thread());
    }
}

#else

int32_t thread_count();

// A number that threads wait to see changed.
class Turn {
  public:
    uint32_t now() const { return number_.load(std::memory_order_acquire); }
    void next();
    void wait_for_other_than(uint32_t seen);

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::atomic<uint32_t> number_{0};
};

// What the threads that do a kernel's work have in common.
class Team {
  public:
    explicit Team(int threads) : size_(threads) {}
    int size() const { return size_; }
    // The next task of a shared loop.
    int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }
    // Waits until all threads are here.
    void wait();

  protected:
    int size_;

  private:
    std::atomic<int64_t> next_{0};
    std::atomic<int> arrived_{0};
    Turn turn_;
};

// As above.
class Thread {
  public:
    Thread(Team& team, int index) : team_(team), index_(index) {}

    template <typename Task>
    void share(int64_t count, const Task& task) const {
        for (int64_t k; (k = team_.take()) < count;) task(k);
        team_.wait();
    }
    template <typename Task>
    void divide(int64_t count, const Task& task) const {
        const int64_t part = count / team_.size(), longer = count % team_.size();
        const int64_t begin = index_ * part + std::min<int64_t>(index_, longer);
        const int64_t end = begin + part + (index_ < longer);
        for (int64_t k = begin; k < end; ++k) task(k);
    }
    void wait() const { team_.wait(); }

  private:
    Team& team_;
    const int index_;
};

// Calls `run(body, thread)` with each thread of the pool; returns when all have done it.
void run_in_pool(void (*run)(const void* body, const Thread& thread), const void* body);

template <typename Body>
inline void in_parallel(const Body& body) {
    run_in_pool(
        [](const void* of, const Thread& thread) {
            const StandardArithmetic standard;
            (*static_cast<const Body*>(of))(thread);
        },
        &body);
}

#endif

}  // namespace east
