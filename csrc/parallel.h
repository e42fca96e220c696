// Bands of rows on a bounded number of threads.
//
// A page takes 0.4 to 1 ms and starting a thread 0.05 ms, so helpers are kept. They sleep when
// there is nothing to do, and a call never waits for one to be free: the caller works through its
// bands itself, and helpers take what they can. Bands are more than threads, so that who starts
// late does less.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#include "kernels.h"

namespace sketchify {

class Pool {
 public:
  // Calls work(i) for i = 0..n-1, on this thread and at most threads - 1 others.
  void run(std::ptrdiff_t n, int threads, const std::function<void(std::ptrdiff_t)>& work) {
    Job job{work, n, threads - 1};
    std::unique_lock lock(mutex_);
    start_helpers(threads - 1);
    jobs_.push_back(&job);
    for (int i = 1; i < threads; ++i) wake_.notify_one();
    take_part(job, lock);
    std::erase(jobs_, &job);
    // A helper is in its last band, and waking up from a wait takes about as long as a band.
    for (int i = 0; i < 200 && job.helpers > 0; ++i) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
    job.done.wait(lock, [&] { return job.helpers == 0; });
  }

 private:
  struct Job {
    const std::function<void(std::ptrdiff_t)>& work;
    std::ptrdiff_t count;
    int places;  // for helpers, not taken yet
    int helpers = 0;
    std::ptrdiff_t next = 0;
    std::condition_variable done{};
  };

  void start_helpers(int count) {
    try {
      for (; helpers_ < count; ++helpers_) std::thread([this] { help(); }).detach();
    } catch (const std::system_error&) {
      // The system has no more threads for us. Those there are will do.
    }
  }

  static void take_part(Job& job, std::unique_lock<std::mutex>& lock) {
    while (job.next < job.count) {
      const std::ptrdiff_t i = job.next++;
      lock.unlock();
      job.work(i);
      lock.lock();
    }
  }

  void help() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !jobs_.empty(); });
      Job& job = *jobs_.front();
      ++job.helpers;
      if (--job.places == 0) jobs_.pop_front();
      take_part(job, lock);
      if (--job.helpers == 0) job.done.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;
  int helpers_ = 0;
};

// Of this process: a fork has none of its parent's threads, and starts anew. Never deleted, since
// the helpers may outlive static destructors.
inline Pool* pool = [] {
  pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  return new Pool;
}();

template <class Work>
void parallel_rows(int threads, std::ptrdiff_t height, const Work& work) {
  constexpr std::ptrdiff_t least = 64;  // rows of a band: filtering its border again costs some 20
  const std::ptrdiff_t bands =
      std::clamp<std::ptrdiff_t>(height / least, 1, 4 * std::ptrdiff_t{threads});
  if (threads == 1 || bands == 1) return work(Rows{0, height});
  const auto band = [&](std::ptrdiff_t i) {
    work(Rows{height * i / bands, height * (i + 1) / bands});
  };
  pool->run(bands, std::min<std::ptrdiff_t>(threads, bands), band);
}

}  // namespace sketchify
