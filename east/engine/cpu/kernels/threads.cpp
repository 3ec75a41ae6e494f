// The kernels' own pool of threads, where they are compiled without OpenMP.

#include "threads.h"

#if !defined(_OPENMP)

#include <pthread.h>

#include <system_error>
#include <thread>

namespace east {

void Turn::next() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        number_.fetch_add(1, std::memory_order_release);
    }
    changed_.notify_all();
}

void Turn::wait_for_other_than(uint32_t seen) {
    // Kernels follow each other closely, so a look or two usually spare a thread its sleep.
    constexpr int looks = 1000;
    for (int k = 0; k < looks; ++k) {
        if (now() != seen) return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return now() != seen; });
}

void Team::wait() {
    if (size_ == 1) {
        next_ = 0;
        return;
    }
    const uint32_t seen = turn_.now();
    if (arrived_.fetch_add(1) + 1 < size_) {
        turn_.wait_for_other_than(seen);
        return;
    }
    next_ = 0;
    arrived_ = 0;
    turn_.next();
}

namespace {

// The threads that the kernels start, and the one that calls them. They sleep until there is work.
class Pool : Team {
  public:
    Pool() : Team(1) {}

    void ask_for(int threads) { wanted_ = std::max(threads, 1); }
    int wanted() const { return wanted_; }

    void run(void (*run)(const void*, const Thread&), const void* body) {
        const int wanted = wanted_;
        // A second caller at the same time works alone.
        if (wanted == 1 || busy_.test_and_set(std::memory_order_acquire)) {
            Team alone(1);
            run(body, Thread(alone, 0));
            return;
        }
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            size_ = 1 + start(wanted - 1);
            run_ = run;
            body_ = body;
            work_.next();
        }
        run(body, Thread(*this, 0));
        wait();
        busy_.clear(std::memory_order_release);
    }

  private:
    // Returns how many of `count` threads there are: fewer where the system grants no more.
    int start(int count) {
        try {
            for (; started_ < count; ++started_) std::thread(&Pool::serve, this, started_ + 1, work_.now()).detach();
        } catch (const std::system_error&) {
            // Those that there are do all the work.
        }
        return std::min(started_, count);
    }

    [[noreturn]] void serve(int index, uint32_t seen) {
        while (true) {
            work_.wait_for_other_than(seen);
            bool called;
            void (*run)(const void*, const Thread&);
            const void* body;
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                seen = work_.now();
                called = index < size_;
                run = run_;
                body = body_;
            }
            if (!called) continue;
            run(body, Thread(*this, index));
            wait();
        }
    }

    std::atomic<int> wanted_{1};
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    Turn work_;
    std::mutex mutex_;  // of what is below, and of the size
    void (*run_)(const void*, const Thread&) = nullptr;
    const void* body_ = nullptr;
    int started_ = 0;
};

// Never destroyed, since its threads run until the process has ended. A fork has none of them, so it gets a pool of its own.
Pool*& pool() {
    static Pool* current = [] {
        pthread_atfork(nullptr, nullptr, [] {
            Pool*& of_parent = pool();
            of_parent = new Pool;
        });
        return new Pool;
    }();
    return current;
}

}  // namespace

int32_t thread_count() { return pool()->wanted(); }

void run_in_pool(void (*run)(const void* body, const Thread& thread), const void* body) { pool()->run(run, body); }

}  // namespace east

#endif

// How many threads the kernels may use from now on. OpenMP has a number of its own, which PyTorch sets.
extern "C" void east_use_threads(int32_t threads) {
#if defined(_OPENMP)
    (void)threads;
#else
    east::pool()->ask_for(threads);
#endif
}
