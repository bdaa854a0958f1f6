// Writes checkpoints beside the steps: every rank its files, from a snapshot, in a thread of its own. At the
// first end of a step at which all ranks have written, rank 0's thread gives the checkpoint its name and
// prunes older ones. One is under way at most. All ranks make the same calls together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "src/core/error.h"
#include "src/distributed/background.h"
#include "src/distributed/communicator.h"
#include "src/io/checkpoint.h"

namespace flasheva {

class CheckpointSaver {
 public:
  // Writes below `checkpoints`; keeps the newest `keep`.
  CheckpointSaver(std::filesystem::path checkpoints, std::int64_t keep, Communicator& communicator);

  // What a rank writes, beside the steps, and which file of moments that is, if any. What it reads must stay
  // as it is until another one is started, or none is under way.
  using Write = std::function<std::optional<CheckpointFile>(CheckpointWriter&)>;
  // Makes ready for the checkpoint of `step`, about `bytes` large; none may be under way. SharedError{disk}
  // where there is no room for it.
  void begin(std::int64_t step, std::uintmax_t bytes);
  // Starts to write it.
  void start(Write write);

  // Whether this rank's thread works.
  bool busy() const { return !background_.idle(); }
  // At the end of a step, with whether any rank is busy: takes the next stage if none is. SharedError of what
  // failed meanwhile; no checkpoint is under way then.
  void go_on(bool any_busy);
  // Returns when none is under way. SharedError of what failed.
  void finish();

 private:
  enum class Stage { idle, writing, naming };
  void in_background(std::function<void()> work);
  void conclude_stage();
  std::vector<CheckpointFile> moments_of_all_ranks();

  const std::filesystem::path checkpoints_;
  const std::int64_t keep_;
  Communicator& communicator_;
  Stage stage_ = Stage::idle;
  std::optional<CheckpointWriter> writer_;
  std::optional<CheckpointFile> moments_;  // this rank's
  std::optional<Error> error_;             // of this rank's thread
  Background background_;                  // the last to come, the first to go: its jobs use the others
};

}  // namespace flasheva
