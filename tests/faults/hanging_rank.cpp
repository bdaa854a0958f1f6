// One of the ranks of the committed run, under mpirun, of which one is in trouble:
//     hanging_rank FOLDER hangs|is-slow DURING
// Once it comes to DURING, rank 1 hangs, or takes more time than the others have patience, but piece by
// piece. Where that is a checkpoint, the disk of rank 0 does.
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

#include "kernels/timed_ops.h"
#include "src/core/error.h"
#include "tests/training/ranks.h"

namespace flasheva {
namespace {

constexpr double patience = 2, longer = 4;  // seconds

struct Trouble {
  bool hangs = false;
  std::string during;
  std::atomic<bool> here = false;  // in this rank, and now
  std::mutex mutex;
  double seconds_left = longer;

  // Before a piece of work is done.
  void strike(double seconds) {
    if (!here) return;
    while (hangs) ::pause();
    const std::lock_guard lock(mutex);
    if (seconds_left <= 0) return;
    seconds_left -= seconds;
    ::usleep(static_cast<useconds_t>(1e6 * seconds));
  }
} trouble;

class SlowOps final : public TimedOps {
 public:
  using TimedOps::TimedOps;
  void gelu_forward(Tensor out, Tensor x) override {
    trouble.strike(0.2);
    TimedOps::gelu_forward(out, x);
  }
  void gelu_backward(Tensor dx, Tensor dbias, Tensor dout, Tensor x) override {
    trouble.strike(0.5);
    TimedOps::gelu_backward(dx, dbias, dout, x);
  }
};

class TroubledRank final : public ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  void set_timeout(double) override {}  // processes do not stand still
  void set_patience(double, const std::string& during) override {
    ForwardingCommunicator::set_patience(patience, during);
    trouble.here = during == trouble.during && rank() == (during == "a checkpoint" ? 0 : 1);
  }
};

int run(const std::string& folder) {
  const auto communicator = make_communicator();
  TroubledRank rank(*communicator);
  const auto cpu = make_cpu_ops(1);
  SlowOps ops(*cpu);
  TrainingRun training{std::filesystem::path(folder)};
  training.train_with(
      rank,
      {"data.validation=" + training.tokens().string(), "phases.0.steps=3", "phases.1.steps=1",
       "batch.sequences=6", "batch.micro=1", "evaluate.batches=3", "checkpoint.every=1"},
      &ops);
  communicator->leave();
  return 0;
}

}  // namespace
}  // namespace flasheva

int fsync(int descriptor) {
  flasheva::trouble.strike(0.5);
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

int main(int arguments, char** argument) {
  if (arguments != 4) return static_cast<int>(flasheva::ExitCode::usage);
  ::alarm(60);  // nobody notices
  flasheva::trouble.hangs = argument[2] == std::string("hangs");
  flasheva::trouble.during = argument[3];
  return flasheva::run(argument[1]);
}
