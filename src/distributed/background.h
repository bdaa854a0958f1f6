// A thread that does jobs one after another, in the order in which they are handed over.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace flasheva {

class Background {
 public:
  using Job = std::function<void()>;

  Background() : thread_([this] { run(); }) {}
  // Does what was handed over, then ends.
  ~Background() {
    start({});
    thread_.join();
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void start(Job job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }

  // Whether every job is done.
  bool idle() const {
    const std::lock_guard lock(mutex_);
    return jobs_.empty();
  }

  // Returns when every job is done.
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return jobs_.empty(); });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return !jobs_.empty(); });
      const Job job = jobs_.front();
      if (!job) return;
      lock.unlock();
      job();
      lock.lock();
      jobs_.pop_front();  // only now: wait() must not return before
      changed_.notify_all();
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::thread thread_;
};

}  // namespace flasheva
