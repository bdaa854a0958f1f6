// Asks to stop between steps: SIGTERM, SIGINT and SIGUSR1 set a flag that the training loop reads. A second
// signal of the same kind ends the program at once.
#pragma once

namespace flasheva {

// Catches the signals while it lives.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool requested();
};

}  // namespace flasheva
